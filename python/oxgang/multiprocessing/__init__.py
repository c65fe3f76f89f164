"""A drop-in for `multiprocessing`.

Ours: processes and pools; queues and pipes; locks, semaphores, conditions, events and barriers;
shared values and arrays; and the contexts that make them. What is taken from the standard module as
it is says so where it is defined.
"""

from oxgang.multiprocessing import context

_default = context._default_context

# as the standard module does it: what the default context has is what the module has
__all__ = [name for name in dir(_default) if not name.startswith("_")]
globals().update((name, getattr(_default, name)) for name in __all__)

SUBDEBUG = 5
SUBWARNING = 25
