"""`multiprocessing.sharedctypes`: ctypes objects in shared memory, each with a lock of ours.

The memory is the standard module's. An access takes the lock, reads or writes, and gives the lock
back in one call of Rust.
"""

import ctypes
import weakref
from multiprocessing.context import assert_spawning
from multiprocessing.sharedctypes import RawArray, RawValue, copy

from oxgang import _core

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_structures = weakref.WeakKeyDictionary()


def Value(typecode_or_type, *args, lock=True, ctx=None):
    """A ctypes object in shared memory, with a lock; as `multiprocessing.Value`.

    Args:
        typecode_or_type: A ctypes type, or a type code of the `array` module.
        args: For the type's constructor.
        lock: True: a new `RLock`. A lock: that one. False: none, and the bare object is returned.

    Raises:
        AttributeError: `lock` is no lock.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type, size_or_initializer, *, lock=True, ctx=None):
    """A ctypes array in shared memory, with a lock; as `multiprocessing.Array`.

    Args:
        typecode_or_type: A ctypes type, or a type code of the `array` module.
        size_or_initializer: The length, or the items.
        lock: As for `Value`.

    Raises:
        AttributeError: `lock` is no lock.
    """
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj, lock, ctx):
    if lock is False:
        return obj
    if lock in (True, None):
        lock = None
    elif not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


def synchronized(obj, lock=None, ctx=None):
    """A wrapper that takes a lock around each access to a ctypes object."""
    if isinstance(obj, SynchronizedBase):
        raise AssertionError("object already synchronized")
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        return (SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray)(
            obj, lock, ctx
        )
    kind = type(obj)
    if kind not in _structures:
        fields = {field[0]: _attribute(field[0]) for field in kind._fields_}
        _structures[kind] = type(f"Synchronized{kind.__name__}", (_Structure,), fields)
    return _structures[kind](obj, lock, ctx)


def _attribute(name):
    def get(self):
        with self:
            return getattr(self._obj, name)

    def set(self, value):
        with self:
            setattr(self._obj, name, value)

    return property(get, set)


def _lock_for(lock, ctx):
    """(lock, whether it is a plain one of ours)."""
    from oxgang.multiprocessing import synchronize

    if lock is None:
        lock = synchronize.RLock() if ctx is None else ctx.RLock()
    return lock, getattr(type(lock), "acquire", None) is _core.SharedLock.acquire


class SynchronizedBase:
    """A ctypes object and its lock."""

    @property
    def acquire(self):
        """The lock's."""
        return self._lock.acquire

    @property
    def release(self):
        """The lock's."""
        return self._lock.release

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exception):
        return self._lock.__exit__(*exception)

    def __reduce__(self):
        assert_spawning(self)
        return synchronized, (self._obj, self._lock)

    def __repr__(self):
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(_core.SharedNumber, SynchronizedBase):
    """A value: its `value` is read and written under the lock."""

    def __new__(cls, obj, lock=None, ctx=None):
        return super().__new__(cls, obj, *_lock_for(lock, ctx))


class SynchronizedArray(_core.SharedItems, SynchronizedBase):
    """An array: items and slices are read and written under the lock."""

    def __new__(cls, obj, lock=None, ctx=None):
        return super().__new__(cls, obj, *_lock_for(lock, ctx))


class SynchronizedString(SynchronizedArray):
    """An array of characters, with `value` and `raw` under the lock."""

    value = _attribute("value")
    raw = _attribute("raw")


class _Structure(SynchronizedBase):
    """A structure: its fields are read and written under the lock."""

    def __init__(self, obj, lock=None, ctx=None):
        self._obj = obj
        self._lock, _ = _lock_for(lock, ctx)

    def get_obj(self):
        """The structure itself."""
        return self._obj

    def get_lock(self):
        """Its lock."""
        return self._lock
