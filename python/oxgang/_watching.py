"""What a function or class of ``__main__`` was made of, to see whether it still is that.

By value it goes as bytes, which are made once and hold as long as nothing that they were made of is
another object. That is what is *watched*: globals that a function refers to, as ``(dict, name,
value)``; what a closure holds, as ``(cell, None, value)``; classes, as ``(class, None, None)``, of
which the interpreter itself knows whether they were changed. Where something could change without
that, the bytes hold for this moment only.
"""

import types
from functools import cached_property

from cloudpickle import cloudpickle as parts

_FIXED = (
    *(types.NoneType, types.EllipsisType, types.NotImplementedType),
    *(bool, int, float, complex, str, bytes, range),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.BuiltinFunctionType),
    *(types.MethodDescriptorType, types.WrapperDescriptorType),
)
# what others note in a class, or what nobody writes after the class statement though it could be
_LEFT_ALONE = frozenset(
    (
        *("__annotations__", "__annotate_func__", "__annotations_cache__", "__orig_bases__"),
        *("__dataclass_fields__", "__dataclass_params__", "__slotnames__", "_abc_impl"),
    )
)


def watch_function(function, watched, seen):
    """Notes the globals that a function of __main__ refers to; False if it has state that can
    change unseen (a closure, or default arguments)."""
    if function in seen:
        return True
    seen.add(function)
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return False
    values = _globals_of(function, watched)
    return values is not None and all(
        watch_function(value, watched, seen)
        for value in values
        if _is_of_main(value, types.FunctionType)
    )


def watch_class(cls, watched, seen):
    """The same for a class of __main__, its bases and its methods."""
    if cls in seen:
        return True
    seen.add(cls)
    if type(cls).__module__ == "__main__":
        return False
    watched.append((cls, None, None))
    for base in cls.__bases__:
        if _is_of_main(base, type) and not watch_class(base, watched, seen):
            return False
    return all(
        name in _LEFT_ALONE or _watch_value(value, watched, seen)
        for name, value in vars(cls).items()
    )


def _watch_value(value, watched, seen):
    """What stands in a class, is a default argument, or is held by a closure."""
    if isinstance(value, types.FunctionType):
        return _watch_method(value, watched, seen)
    if isinstance(value, type):
        return value.__module__ != "__main__" or watch_class(value, watched, seen)
    inside = _parts_of(value)
    if inside is not None:
        return all(_watch_value(part, watched, seen) for part in inside)
    home = type(value).__module__
    # dataclasses marks by objects what was not given
    return home == "dataclasses" or (isinstance(value, _FIXED) and home != "__main__")


def _parts_of(value):
    kind = type(value)
    if kind in (tuple, frozenset):
        return value
    if kind in (classmethod, staticmethod):
        return (value.__func__,)
    if kind is property:
        return value.fget, value.fset, value.fdel
    if kind is cached_property:
        return (value.func,)
    return None


def _watch_method(function, watched, seen):
    if function in seen:
        return True
    seen.add(function)
    own = function.__globals__.get("__name__") == "__main__"
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            return False  # it is to come
        watched.append((cell, None, value))
        # what a library's wrapper holds is the library's affair, but for what it wraps
        matters = own or _is_of_main(value, (types.FunctionType, type))
        if matters and not _watch_value(value, watched, seen):
            return False
    defaults = (function.__defaults__ or (), *(function.__kwdefaults__ or {}).values())
    if not _watch_value(defaults, watched, seen):
        return False
    if not own:
        return True
    values = _globals_of(function, watched)
    return values is not None and all(
        _watch_value(value, watched, seen)
        for value in values
        if _is_of_main(value, (types.FunctionType, type))
    )


def _globals_of(function, watched):
    """Values of the globals that a function refers to, which are noted; None: one of them is yet to
    come, as in a notebook."""
    known, values = function.__globals__, []
    for name in parts._extract_code_globals(function.__code__):
        if name in known:
            watched.append((known, name, known[name]))
            values.append(known[name])
        elif name not in function.__builtins__:
            return None
    return values


def _is_of_main(value, kinds):
    return isinstance(value, kinds) and value.__module__ == "__main__"
