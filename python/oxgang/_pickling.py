"""Calls, results and errors as bytes.

Three rules decide how something crosses to a worker:

1. What can be found by name where it arrives is sent by name (plain pickle).
2. What lives in ``__main__`` goes *by value*: a script needs no ``__main__`` guard, and a
   notebook's or ``python -c``'s functions work, since nothing has to be run again to find them.
   So do lambdas and closures from anywhere.
3. If that fails (a function of ``__main__`` uses a global that cannot be pickled), it goes by
   name after all, and the worker runs the script, under the name ``__mp_main__`` as
   `multiprocessing` does, to find it.

Functions that come by value share one namespace per module in the worker, as they did at home:
an initializer that sets a global is seen by the tasks. What the owner sends for a name replaces
what it sent before, never what the worker's own code has set since.

On the way back nothing is special: the owner has ``__main__`` and finds its classes by name.
"""

import sys
import types

# the C half of pickle, by itself: a worker's first task waits for this module, and pickle.py
# brings regular expressions along
from _pickle import PickleBuffer, Pickler, PicklingError, loads
from importlib import import_module

from oxgang import _core, _standard

_EXTRA = "multiprocessing.reduction"
_ALIAS = _standard.ALIAS + _EXTRA


def _reducers():
    """The dispatch table of the standard ForkingPickler, with what others register there, before
    and after the first look (which is noticed by their number). None while nobody holds anything
    that needs it."""
    global _table, _tables, _sizes
    if _tables is None:
        extra = extra_reducers()
        if extra is None:
            return None
        import copyreg

        _tables = copyreg.dispatch_table, extra
    common, extra = _tables
    if (sizes := (len(common), len(extra))) != _sizes:
        _table, _sizes = {**common, **extra}, sizes
        if "torch" in sys.modules:
            from oxgang._torch import taken_over

            _table = taken_over(_table)
    return _table


_table = _tables = _sizes = None


def extra_reducers():
    """The standard ForkingPickler's own dispatch table; None while nobody has loaded that."""
    # asked for every pickle, so the usual answer comes first
    if _EXTRA not in sys.modules and _ALIAS not in sys.modules:
        return None
    reduction = _standard.loaded(_EXTRA)
    return None if reduction is None else reduction.ForkingPickler._extra_reducers


class _Outbound(Pickler):
    """Plain pickle that stops at functions and classes of __main__."""

    reducer_override = staticmethod(_core.stop_at_main)


_APART = 1 << 16  # shorter buffers stay in the pickle
_MOST_APART = 256


class _ReadOnly(Exception):
    """A numpy array that nobody may write was met."""


def _unlocked(obj):
    """How to pickle a numpy array so that it can be written where it arrives, as those that the
    standard pools send can be, whatever the sender may do with it. None for anything else."""
    if type(obj).__module__ != "numpy" or type(obj).__name__ != "ndarray":
        return None
    make, arguments, *rest = obj.__reduce_ex__(5)
    if not isinstance(arguments[0], PickleBuffer):
        return None
    buffer = PickleBuffer(_core.Unlocked(arguments[0].raw()))
    return make, (buffer, *arguments[1:]), *rest


_unlocking_classes = {}


def _unlocking(pickler_class):
    """The pickler class that unlocks arrays besides."""
    if pickler_class in _unlocking_classes:
        return _unlocking_classes[pickler_class]
    overrides = hasattr(pickler_class, "reducer_override")

    class Unlocking(pickler_class):
        def reducer_override(self, obj):
            reduced = _unlocked(obj)
            if reduced is None:
                return super().reducer_override(obj) if overrides else NotImplemented
            return reduced

    return _unlocking_classes.setdefault(pickler_class, Unlocking)


class _Apart(list):
    """What a pickler leaves out of its pickle: long buffers, in their order. They are copied once,
    into shared memory, and the other side looks at them there."""

    __slots__ = ()

    def take(self, buffer):
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # not in one piece: pickle has something to say about that
        if raw.readonly and type(raw.obj).__module__ == "numpy":
            raise _ReadOnly
        if raw.nbytes < _APART or len(self) >= _MOST_APART:
            return True
        self.append(raw)
        return False


# what is pickled for whom, as `_core.dump` counts them: to a worker, a call; back, a result
_TO_WORKER, _CALL, _BACK, _RESULT = range(4)


def _class_of(kind):
    return _Outbound if kind < _BACK else Pickler


def _goes_apart(kind):
    return kind in (_CALL, _RESULT)


def new_pickler(kind):
    """A pickler for many objects: its methods `dump` and `clear_memo`, and where to find what it
    writes and what it leaves out."""
    sink, left_out = _core.Sink(), _Apart()
    take = left_out.take if _goes_apart(kind) else None
    pickler = _class_of(kind)(sink, 5, buffer_callback=take)
    table = _reducers()
    if table is not None:
        pickler.dispatch_table = table
    return pickler.dump, pickler.clear_memo, sink, left_out


def _dump_anew(pickler_class, obj, table, apart):
    """As `_core.dump`, with a pickler of its own."""
    sink, left_out = _core.Sink(), _Apart()
    pickler = pickler_class.__new__(pickler_class)
    if table is not None:
        # first, since a class that has one (cloudpickle's does) keeps to what it finds by then
        pickler.dispatch_table = table
    pickler.__init__(sink, 5, buffer_callback=left_out.take if apart else None)
    pickler.dump(obj)
    data = sink.take() if apart else sink.take_bytes()
    return (data, left_out) if left_out else data


def _unlocked_dump(pickler_class, obj, apart):
    return _dump_anew(_unlocking(pickler_class), obj, _reducers(), apart)


def dumps(obj, kind=_TO_WORKER):
    """An object on its way to a worker."""
    try:
        return _core.dump(kind, obj)
    except Exception as failure:
        return dump_otherwise(kind, failure, obj)


def dumps_back(obj):
    """An object on its way to the owner."""
    return dumps(obj, _BACK)


def dump_call(arguments):
    """Positional and keyword arguments, or anything else that a worker gets: a `_core.Pickle`, or
    that and what goes apart."""
    return dumps(arguments, _CALL)


def dump_result(value):
    """A result, as `dump_call`."""
    return dumps(value, _RESULT)


def dump_otherwise(kind, failure, obj):
    """What comes after `_core.dump` has failed."""
    apart = _goes_apart(kind)
    if isinstance(failure, _ReadOnly):
        try:
            return _unlocked_dump(_class_of(kind), obj, apart)
        except Exception as another:
            failure = another
    if isinstance(failure, _core.NeedsValue):
        try:
            return _by_value(obj, apart)
        except Exception as by_value:
            return _by_name_or(by_value, obj, apart)
    if isinstance(failure, (PicklingError, AttributeError, TypeError)):
        try:
            return _by_value(obj, apart)
        except Exception:
            raise _told(kind, failure, obj) from None  # it is the plain one that users know
    raise _told(kind, failure, obj)


def _told(kind, failure, obj):
    if kind == _RESULT and unsendable is not None:
        return unsendable(failure, obj)
    return failure


def _by_name_or(by_value, obj, apart):
    """Rule 3: only for a __main__ that the worker can run."""
    if getattr(sys.modules.get("__main__"), "__file__", None) is None:
        raise by_value
    try:
        try:
            return _core.dump(_RESULT if apart else _BACK, obj)
        except _ReadOnly:
            return _unlocked_dump(Pickler, obj, apart)
    except Exception:
        raise by_value from None


# what a result's failure to be pickled becomes, made of that and the result, where it is not
# raised as it is
unsendable = None


# -- by value ---------------------------------------------------------------------------


def _by_value(obj, apart):
    from oxgang._by_value import Pickler as ByValue

    table = _reducers()
    if table is not None:
        from collections import ChainMap

        table = ChainMap(ByValue.dispatch_table, table)
    try:
        return _dump_anew(ByValue, obj, table, apart)
    except _ReadOnly:
        return _dump_anew(_unlocking(ByValue), obj, table, apart)


def namespace(name):
    """Where functions of module `name` live in this process."""
    if name == "__main__":
        return sys.modules["__main__"].__dict__
    return import_module(name).__dict__


# -- functions --------------------------------------------------------------------------


def dump_callable(function):
    """A function or class as bytes, and what they stay good for.

    Gives ``(bytes, watched)``: `watched` is None if the bytes hold for this moment only;
    otherwise a list of ``(dict, name, value)``: they hold while each dict has that very value.
    """
    main = function.__module__ == "__main__"
    if not main and _importable(function):
        return _core.dump(_BACK, function), []
    data = dumps(function)
    if not main or not isinstance(function, types.FunctionType):
        return data, None
    from oxgang._watching import watch_function

    watched = []
    return data, watched if watch_function(function, watched, set()) else None


def load_callable(data):
    return loads(data)


def dump_class(cls):
    """A class of ``__main__`` by value, as bytes, and what they hold for, as `dump_callable` has it
    and besides ``(cell, None, value)`` and ``(class, None, None)``: as long as the cell has that
    value, as long as the class is not changed. None if that cannot be said."""
    from oxgang._watching import watch_class

    watched = []
    return (_by_value(cls, False), watched) if watch_class(cls, watched, set()) else None


def rebuild(cls, state):
    """An instance as pickle rebuilds it that has a state and nothing else."""
    instance = cls.__new__(cls)
    if state:
        set_state = getattr(instance, "__setstate__", None)
        if set_state is not None:
            set_state(state)
        else:
            instance.__dict__.update(state)
    return instance


def _importable(obj):
    module = sys.modules.get(obj.__module__)
    found = module
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj and getattr(module, "__spec__", None) is not None


# -- errors -----------------------------------------------------------------------------


def dump_error(error):
    """An exception as ``(pickle or None, class name, text, traceback text)``."""
    try:
        data = dumps_back(error)
    except Exception:
        data = None  # load_error makes do with the texts
    return data, _name_of(type(error)), _text_of(error), _traceback_of(error)


def _name_of(cls):
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def _text_of(error):
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception as failure:
        return f"<no text: str() raised {type(failure).__name__}>"


def _traceback_of(error):
    import traceback

    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        return "".join(lines).encode("utf-8", "backslashreplace").decode()
    except Exception as failure:
        return f"<no traceback: formatting it raised {type(failure).__name__}>"


def load_error(parts):
    """The exception, its remote traceback as its cause, as the standard executor has it."""
    from concurrent.futures.process import _RemoteTraceback

    data, name, text, trace = parts
    cause = _RemoteTraceback(f'\n"""\n{trace}"""')
    if data is None:
        error = payload_error(f"the {name} that the task raised ({text})", None)
    else:
        try:
            error = loads(data)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            error = payload_error(f"the {name} that the task raised ({text})", failure)
        if not isinstance(error, BaseException):
            error = payload_error(f"the {name} that the task raised ({text})", None)
    error.__cause__ = cause
    return error


def payload_error(what, failure):
    """A PayloadError for data that could not be rebuilt."""
    from oxgang.errors import PayloadError

    if failure is None:
        reason = "it cannot be pickled"
    else:
        reason = f"unpickling it raised {_name_of(type(failure))}: {_text_of(failure)}"
    error = PayloadError(f"{what} did not arrive: {reason}")
    error.__cause__ = failure
    return error


def broken_error(why):
    """A BrokenProcessPool for a pool that cannot go on."""
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool(why)
