"""Whether this is the main interpreter: the extension module cannot be in another one."""

import _thread


def is_main():
    """Whether the caller runs in the main interpreter of its process."""
    known = getattr(_thread, "_is_main_interpreter", None)  # from Python 3.13 on
    if known is not None:
        return known()
    import _xxsubinterpreters as interpreters

    return interpreters.get_current() == interpreters.get_main()
