"""What a row of results can hold: Python values as cells, JSON or lines.

`encoder_for(form)` gives a function from a result to what `MapJob.succeed` takes:

* "csv": a list of (column, cell). A dict, dataclass instance or named tuple has a column per
  member; anything else is one column, `result`. In a cell, text stays as it is, None is empty,
  numbers and truth values are written as in JSON (floats also as nan, inf), other data is JSON.
* "jsonl": JSON. What JSON does not have becomes the nearest thing it has: NaN and infinities
  null, dates and paths text, numbers of other libraries numbers.
* "lines": text as it is, JSON where it can be, else `str()`.

What cannot be written raises `Unwritable`, which names the type: a failure of that input alone.
"""

import dataclasses
import json
import math
import numbers
import os
from datetime import date, time


class Unwritable(Exception):
    """This result cannot be a row."""


def encoder_for(form):
    """The function that makes a row of a result."""
    make = {"csv": _cells, "jsonl": _json, "lines": _line}[form]

    def encode(value):
        try:
            return make(value)
        except Unwritable:
            raise
        except Exception as error:  # the value's own methods may raise anything
            raise Unwritable(_sentence(value, f"{type(error).__name__}: {error}")) from error

    return encode


def _cells(value):
    members = _members(value)
    if members is None:
        return [("result", _cell(value, value))]
    return [(_checked(str(name), value), _cell(member, value)) for name, member in members.items()]


def _members(value):
    if isinstance(value, dict):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return None


def _cell(value, whole):
    if value is None:
        return ""
    if isinstance(value, str):
        return _checked(value, whole)
    if isinstance(value, float):
        return float.__repr__(value)
    text = _dumped(value, whole)
    # Dates, paths and the like are text in JSON; a cell needs no quotes around it.
    return json.loads(text) if text.startswith('"') else text


def _json(value):
    members = _members(value)
    return _dumped(value if members is None else members, value)


def _line(value):
    if isinstance(value, str):
        return _checked(value, value)
    try:
        return _json(value)
    except Unwritable:
        return _checked(str(value), value)


def _dumped(value, whole):
    try:
        try:
            text = _to_json(value)
        except ValueError:  # NaN or an infinity somewhere, or a circle
            text = _to_json(_without_nan(value))
    except _NotPlain as error:
        raise Unwritable(_sentence(whole, f"it holds a value of type {error}")) from None
    except RecursionError:
        raise Unwritable(_sentence(whole, "it is nested too deeply or holds itself")) from None
    except (TypeError, ValueError) as error:
        raise Unwritable(_sentence(whole, str(error))) from None
    return _checked(text, whole)


def _to_json(value):
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
    )


class _NotPlain(TypeError):
    """The name of a type that has no JSON form."""


def _plain(value):
    """The nearest plain value, for what `json` does not know itself."""
    match value:
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            number = float(value)
            return number if math.isfinite(number) else None
        case date() | time():
            return value.isoformat()
        case os.PathLike():
            return os.fsdecode(value)
    members = _members(value)
    if members is not None:
        return members
    # NumPy's truth values are no numbers to Python; its scalars give the plain one by item().
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    raise _NotPlain(_type_name(value))


def _without_nan(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _checked(text, whole):
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unwritable(_sentence(whole, "it holds text that is not valid Unicode")) from None
    return text


def _sentence(whole, why):
    return (
        f"a result of type {_type_name(whole)} cannot be written: {why}; "
        "return text, numbers, lists, dicts"
    )


def _type_name(value):
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
