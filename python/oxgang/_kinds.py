"""What kind a function is, told without `inspect`, which is slow to import."""

from functools import partial
from types import CodeType

_CO_COROUTINE = 0x80


def unwrapped(fn):
    """The function that a partial is of, in the end; any other as it is."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def gives_coroutines(fn):
    """Whether calling it is known to give a coroutine: an ``async def``, a partial or a method of
    one, an object whose ``__call__`` is one, or a function that was marked as such."""
    fn = unwrapped(fn)
    for one in (fn, getattr(type(fn), "__call__", None)):  # noqa: B004
        code = getattr(one, "__code__", None)  # a method has its function's
        if isinstance(code, CodeType) and code.co_flags & _CO_COROUTINE:
            return True
    # as `inspect.markcoroutinefunction` and, before Python 3.12, asyncio leave it
    return "_is_coroutine_mark" in getattr(fn, "__dict__", ()) or "_is_coroutine" in getattr(
        fn, "__dict__", ()
    )
