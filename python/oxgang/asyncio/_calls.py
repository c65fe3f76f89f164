"""Calls of coroutine functions: what may be called, its future, and what became of it."""

import inspect
import types

from oxgang._kinds import gives_coroutines, unwrapped
from oxgang.concurrent.futures._base import Future

_PLAIN = (types.FunctionType, types.BuiltinFunctionType)


class CoroutineFuture(Future):
    """The future of a coroutine: also one that runs can be ended."""

    __slots__ = ("_service",)  # whom to ask; in no dict of its own, since there are many

    def terminate(self):
        """Ends the call, also if it runs: then `CancelledError` is raised where its coroutine
        waits, and if that lets it pass, this future raises `oxgang.errors.TaskTerminated`.
        ``False`` if it is finished, or was cancelled.
        """
        if self.done():
            return False
        return self.cancel() or self._service.terminate(self)


class Call:
    """One call, from `submit` until its future is done."""

    number = None
    began = None  # when, on the monotonic clock; None: it never has
    errors = 0  # what its tries so far have raised
    losses = ()  # the workers they were lost with, as `crash_error` takes them
    failure = None  # while it waits for its next try: how the last one ended
    terminated = False
    context = None
    # of those that go to other processes
    encoded = None  # the function; see `Functions`
    buffers = None  # that belong to the arguments, which are a pickle then
    plain = None  # the function's number, if that and plain arguments are all there is to say

    # no names are given: there is one for each call
    def __init__(self, future, fn, args, kwargs, options, limit):  # noqa: PLR0917
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.limit = limit  # seconds, None: any number; and the grace

    def cancel(self):
        """It has not begun, and will not."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


def refuse_plain(fn):
    """Raises TypeError for what is certainly no coroutine function. A lambda, a decorated function
    or an object may give a coroutine: that is seen when it is called."""
    if type(fn) is types.FunctionType and fn.__code__.co_flags & inspect.CO_COROUTINE:
        return  # as nearly always
    if not callable(fn):
        raise TypeError(f"submit needs a coroutine function, not {type(fn).__name__}")
    bare = unwrapped(fn)
    if isinstance(bare, types.MethodType):
        bare = bare.__func__
    if not isinstance(bare, _PLAIN) or gives_coroutines(bare):
        return
    if bare.__name__ != "<lambda>" and not hasattr(bare, "__wrapped__"):
        raise TypeError(
            f"{name_of(fn)} is a plain function, which would hold up the event loop; give it to "
            "model='thread' or model='process', or call it in an async def by "
            "oxgang.asyncio.to_thread"
        )


def name_of(fn):
    """What to call it; a name stays one."""
    if isinstance(fn, str):
        return fn
    fn = unwrapped(fn)
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


async def outcome(fn, args, kwargs):
    """Runs a call of anything that may give a coroutine."""
    awaitable = fn(*args, **kwargs)
    del args, kwargs  # nobody's any more, whatever a traceback holds of this frame
    if not hasattr(awaitable, "__await__"):
        raise TypeError(
            f"{name_of(fn)} gave no coroutine but a {type(awaitable).__name__}; submit an async def"
        )
    return await awaitable
