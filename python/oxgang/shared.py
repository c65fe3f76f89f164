"""Arrays and objects in memory that several processes use at once, and that pass by handle.

What a task is given is usually its own (see ``docs/data.md``). What is made here is the same memory
in every process that it reaches: as an argument or a result of tasks, or on its way to a
`multiprocessing` child. To pass it costs the same for a byte and for a gigabyte.

    image = oxgang.shared.zeros((4000, 3000))
    with ProcessPoolExecutor() as pool:
        list(pool.map(fill_row, repeat(image), range(4000)))  # all of them write into it

    model = oxgang.shared.share(load_model())                  # stored once, in one piece
    pool.submit(predict, model, x)                             # def predict(model, x): model.get()…

Nobody waits for anybody here: who writes at the same time as others needs a lock
(`oxgang.multiprocessing.Lock`). The memory is freed when the last array, view or handle in any
process is gone, whether it was dropped or its process was killed. Each array takes one file
descriptor in each process that uses it. Needs numpy.
"""

import weakref

from oxgang import _core
from oxgang._pickling import dump_call, loads

try:
    import numpy
except ImportError as missing:
    raise ImportError("oxgang.shared needs numpy: pip install numpy") from missing

__all__ = ["Array", "Shared", "array", "empty", "share", "zeros"]

_ALIGNED = 64
_byte_bounds = getattr(numpy.lib, "array_utils", numpy).byte_bounds


def _arrived(where):
    try:
        return _core.SharedRegion.arrived(*where)
    except OSError as error:
        raise RuntimeError(
            f"shared memory did not arrive: process {where[0]}, which sent it, has ended or has "
            f"let go of it ({error}). Keep it until whoever gets it has it"
        ) from error


# -- arrays --------------------------------------------------------------------------------


class Array(numpy.ndarray):
    """A numpy array in shared memory. Views of it, slices for example, are such arrays too, and
    pass by handle; what is computed from it is a plain array. A copy of it is of this class, but
    lies in memory of its own. Made by `array`, `empty`, `zeros`.
    """

    _region = None

    def __array_finalize__(self, obj):
        region = getattr(obj, "_region", None)
        if region is not None and _lies_in(self, region):
            self._region = region

    def __array_wrap__(self, array, context=None, return_scalar=False):
        if isinstance(array, Array) and array._region is not None:
            return array  # an operation in place
        return array[()] if return_scalar else array.view(numpy.ndarray)

    def __reduce_ex__(self, protocol):
        region = self._region
        if region is None:
            return numpy.ndarray.__reduce_ex__(self.view(numpy.ndarray), protocol)
        offset = self.__array_interface__["data"][0] - region.address if len(region) else 0
        facts = (offset, self.shape, self.strides, self.dtype, self.flags.writeable)
        return _attach_array, (region.send(), facts)

    def __reduce__(self):
        return self.__reduce_ex__(2)


def _lies_in(array, region):
    first, last = _byte_bounds(array)
    return region.address <= first and last <= region.address + len(region)


def _attach_array(where, facts):
    region = _arrived(where)
    offset, shape, strides, dtype, writeable = facts
    # one that is locked nobody can make writable again
    return _lay(region if writeable else region.locked(), shape, dtype, offset, strides)


def _lay(region, *layout):
    array = numpy.ndarray.__new__(Array, *layout[:2], region, *layout[2:])
    array._region = region
    return array


def empty(shape, dtype=float, order="C"):
    """A shared array whose content is zeroes, as it comes from the kernel; as `numpy.empty`.

    Raises:
        TypeError: the dtype holds Python objects.
        MemoryError: the kernel has no memory or no descriptor for it.
    """
    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise TypeError(f"{dtype} holds Python objects, which live in one process only")
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", not {order!r}')
    shape = tuple(numpy.atleast_1d(shape).tolist()) if not isinstance(shape, int) else (shape,)
    length = dtype.itemsize
    for extent in shape:
        length *= int(extent)
    if length < 0:
        raise ValueError("negative dimensions are not allowed")
    return _lay(_core.SharedRegion(length), shape, dtype, 0, None, order)


def zeros(shape, dtype=float, order="C"):
    """A shared array of zeroes; as `numpy.zeros`. Raises what `empty` raises."""
    return empty(shape, dtype, order)


def array(data, dtype=None, *, readonly=False):
    """A shared array with the content of `data`; as `numpy.array`.

    Args:
        data: Anything that `numpy.array` takes.
        dtype: The new array's; default: that of the data.
        readonly: Nobody may write it through an array, in this process or any other.

    Raises:
        TypeError: the data are Python objects.
        MemoryError: the kernel has no memory or no descriptor for it.
    """
    source = numpy.asarray(data, dtype)
    order = "F" if source.flags.fnc else "C"
    made = empty(source.shape, source.dtype, order)
    made[...] = source
    if readonly:
        return _lay(made._region.locked(), made.shape, made.dtype, 0, made.strides)
    return made


# -- objects -------------------------------------------------------------------------------


class Shared:
    """A handle of an object that `share` has stored."""

    __slots__ = ("__weakref__", "_parts", "_region", "_value")

    def __init__(self, region, parts):
        self._region = region
        self._parts = parts

    def get(self):
        """The object: rebuilt once in each process, its long arrays (from 64 KiB on) being the
        shared memory itself, read-only. Raises what unpickling it raises."""
        try:
            return self._value
        except AttributeError:
            memory = memoryview(self._region.locked())
            (first, end), *rest = self._parts
            buffers = [memory[start:stop] for start, stop in rest]
            self._value = loads(bytes(memory[first:end]), buffers=buffers)
            return self._value

    def __reduce__(self):
        return _attach_shared, (self._region.send(), self._parts)

    def __repr__(self):
        return f"<oxgang.shared.Shared, {len(self._region)} bytes>"


_handles = weakref.WeakValueDictionary()  # key -> the handle that has, or will have, the object


def _attach_shared(where, parts):
    region = _arrived(where)
    return _handles.setdefault(region.key, Shared(region, parts))


def share(obj):
    """Stores an object in shared memory, once; gives a handle (`Shared`) whose ``get()`` gives the
    object in any process. Buffers from 64 KiB on (of numpy, pandas, Arrow…) are not copied again by
    anybody, and are read-only; the rest is unpickled once in each process.

    Raises:
        what pickling raises, and MemoryError: the kernel has no memory or no descriptor for it.
    """
    dumped = dump_call(obj)
    data, buffers = dumped if isinstance(dumped, tuple) else (dumped, [])
    data = bytes(data)
    parts, end = [], 0
    for piece in (data, *buffers):
        start = -(-end // _ALIGNED) * _ALIGNED
        end = start + len(piece)
        parts.append((start, end))
    region = _core.SharedRegion(end)
    memory = memoryview(region)
    for (start, stop), piece in zip(parts, (data, *buffers), strict=True):
        memory[start:stop] = piece
    return Shared(region, parts)
