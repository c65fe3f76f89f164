"""What the workers of a `Pool` have besides those of an executor, and what they run."""

import types
from itertools import starmap

from oxgang import _pickling


def begin(initializer, initargs):
    """A worker's first call."""
    _pickling.unsendable = _unsendable
    if initializer is not None:
        initializer(*initargs)


def _unsendable(failure, value):
    from multiprocessing.pool import MaybeEncodingError

    return MaybeEncodingError(failure, value)


# these do not change
_LASTING = (types.FunctionType, types.BuiltinFunctionType, type)


class _Call:
    """Something that workers are sent once and call many times. If it may change when it is
    called (a method of an object, say), each call has a fresh one, as it would if it came along
    with each."""

    __slots__ = ("_data", "_function")

    def __init__(self, function=None, data=None):
        self._function = function
        self._data = data

    def __reduce__(self):
        return type(self), (self._function, self._data)

    @classmethod
    def encoded(cls, function):
        """The bytes of one for `function`."""
        if isinstance(function, _LASTING):
            return _pickling.dumps(cls(function))
        return _pickling.dumps(cls(data=_pickling.dumps(function)))

    def _ready(self):
        return self._function if self._data is None else _pickling.loads(self._data)


class One(_Call):
    """Calls it."""

    def __call__(self, *args):
        return self._ready()(*args)


class Each(_Call):
    """Calls it for each of a chunk, with one argument."""

    def __call__(self, chunk):
        return list(map(self._ready(), chunk))


class EachStarred(_Call):
    """Calls it for each of a chunk, with arguments."""

    def __call__(self, chunk):
        return list(starmap(self._ready(), chunk))
