"""What ends daemonic processes with their parent, however that ends: each holds a line of it.

The standard module ends them when the parent's interpreter ends; one that is killed leaves them
behind.
"""

import os

from oxgang import _core, _template

_held = []


def to_hold(process_obj):
    """A descriptor of this process's line, for a child that is daemonic; otherwise None."""
    return os.dup(_template.lifeline().fileno()) if process_obj.daemon else None


def hold(line):
    """In the child: holds the line, for ever."""
    try:
        _held.append(_core.hold_lifeline(line))
    except BrokenPipeError:
        os._exit(1)  # the parent has ended: there is nobody to tell, and nothing to do
