"""Functions and classes by value: cloudpickle, with namespaces that stay shared.

cloudpickle gives every pickle namespaces of its own. A worker gets many pickles of one program,
and its functions must see each other's globals; so here a function's globals are those of its
module in the worker: the real one's where it can be imported, else the worker's ``__main__``,
to which each pickle adds what its functions refer to.
"""

import sys
import types
from collections import ChainMap
from functools import cached_property

import cloudpickle
from cloudpickle import cloudpickle as parts

from oxgang._pickling import namespace

# one of Python 3.11 has a lock
_OURS = {cached_property: lambda one: (_cached_property, (one.func, one.attrname))}
_REDUCERS = ChainMap(_OURS, cloudpickle.Pickler.dispatch_table)


class Pickler(cloudpickle.Pickler):
    """Pickles by value what cannot be found by name in a worker."""

    dispatch_table = _REDUCERS

    def _dynamic_function_reduce(self, func):
        home = _home_of(func)
        if home is None:
            return super()._dynamic_function_reduce(func)
        code, _, name, defaults, closure = self._function_getnewargs(func)
        state, slots = parts._function_getstate(func)
        if home != "__main__":
            slots["__globals__"] = {}  # the worker imports the module, and has them all
        arguments = (code, _Namespace(home), name, defaults, closure)
        return types.FunctionType, arguments, (home, state, slots), None, None, _set_function

    def reducer_override(self, obj):
        reduced = super().reducer_override(obj)
        if (
            isinstance(obj, type)
            and reduced is not NotImplemented
            and obj.__module__ == "__main__"
            and len(reduced) == 6
        ):
            made = _class_of_main, (obj.__qualname__, *reduced[:2])
            return (*made, (reduced[2], obj.__qualname__), None, None, _set_class)
        return reduced


def _cached_property(function, name):
    made = cached_property(function)
    if name is not None:
        made.__set_name__(None, name)
    return made


class _Namespace:
    """Arrives as the dict of the module with that name."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return namespace, (self.name,)


def _home_of(func):
    """The module whose globals the function uses, if the worker will have it."""
    name = func.__globals__.get("__name__")
    module = sys.modules.get(name)
    if module is None or module.__dict__ is not func.__globals__:
        return None
    if name == "__main__" or getattr(module, "__spec__", None) is not None:
        return name
    return None


_shipped = {}  # name in __main__ -> the object that came for it last


def _ship(name, value):
    known = sys.modules["__main__"].__dict__
    if name not in known or (name in _shipped and known[name] is _shipped[name]):
        known[name] = value
        _shipped[name] = value


def _set_function(func, state):
    home, attributes, slots = state
    for name, value in slots.pop("__globals__").items():
        _ship(name, value)
    slots["__globals__"] = {}
    parts._function_setstate(func, (attributes, slots))
    if home == "__main__" and func.__qualname__.isidentifier():
        _ship(func.__name__, func)


def _own_class(qualname):
    """The class that this process has itself by that name: a fork of the program does, and the
    program. There it is the one that is meant, as pickle by name would have it."""
    main = sys.modules["__main__"]
    if type(main) is not types.ModuleType:
        return None  # filled with what is sent
    own = main.__dict__.get(qualname)
    return own if isinstance(own, type) and own is not _shipped.get(qualname) else None


def _class_of_main(qualname, make, arguments):
    tracker_id = arguments[-2]
    own = _own_class(qualname)
    if own is not None and tracker_id not in parts._DYNAMIC_CLASS_TRACKER_BY_ID:
        return parts._lookup_class_or_track(tracker_id, own)
    return make(*arguments)


def _set_class(cls, state):
    inner, qualname = state
    if cls is _own_class(qualname):
        return cls
    parts._class_setstate(cls, inner)
    if qualname.isidentifier():
        _ship(qualname, cls)
    return cls
