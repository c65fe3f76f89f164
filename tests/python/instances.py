"""Classes whose instances tests send: some that pickle asks nothing, some that have a say."""

import abc
import dataclasses
import functools
import typing


class Plain:
    pass


class Child(Plain):
    kind = "child"

    def __init__(self, *values):
        raise AssertionError("nobody calls this when an instance arrives")

    @classmethod
    def made(cls, **values):
        instance = object.__new__(cls)
        instance.__dict__.update(values)
        return instance


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    name: str
    more: tuple = ()


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self):
        """What it covers."""


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


Kind = typing.TypeVar("Kind")


class Box(typing.Generic[Kind]):
    def __init__(self, content):
        self.content = content


class EmptySlots:
    __slots__ = ()


class WithDict(EmptySlots):
    pass


class Guarded:
    """Its dict has what its class answers for."""

    @property
    def size(self):
        return -1

    @size.setter
    def size(self, value):
        raise AssertionError("an instance's dict is filled without asking")

    def __setattr__(self, name, value):
        raise AssertionError("an instance's dict is filled without asking")


class Cached:
    @functools.cached_property
    def answer(self):
        return 42


# -- what has a say --------------------------------------------------------------------------------


class Said:
    """Notes by which way it came."""

    def __init__(self, way="made"):
        self.way = way

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


class Reduces(Said):
    def __reduce__(self):
        return type(self), ("reduced",)


class ReducesEx(Said):
    def __reduce_ex__(self, protocol):
        return type(self), (f"reduced {protocol > 1}",)


class GetsState(Said):
    def __getstate__(self):
        return {"way": "state"}


class SetsState(Said):
    def __setstate__(self, state):
        self.way = f"set to {state}"


class NewArguments(Said):
    def __new__(cls, *arguments):
        instance = super().__new__(cls)
        instance.arguments = arguments
        return instance

    def __getnewargs__(self):
        return (1, 2)


class NewArgumentsEx(Said):
    def __new__(cls, *arguments, **options):
        instance = super().__new__(cls)
        instance.arguments = arguments, options
        return instance

    def __getnewargs_ex__(self):
        return (1,), {"two": 2}


class News(Said):
    def __new__(cls, *arguments):
        instance = super().__new__(cls)
        instance.new = arguments
        return instance


class Attributes(Said):
    def __getattr__(self, name):
        if name == "__getnewargs__":
            raise AttributeError(name)
        if name == "__getnewargs_ex__":
            return lambda: ((), {})
        raise AttributeError(name)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a = 1

    def __eq__(self, other):
        return type(other) is Slots and (self.a, hasattr(self, "b")) == (other.a, False)

    __hash__ = None


class SlotsAndDict(Slots):
    def __init__(self):
        super().__init__()
        self.c = 3

    def __eq__(self, other):
        return (self.a, self.c) == (other.a, other.c)

    __hash__ = None


class Names(type):
    """A metaclass."""


class Named(Said, metaclass=Names):
    pass


class Numbers(list):
    def __init__(self, *numbers):
        super().__init__(numbers)
        self.note = "list"

    def __eq__(self, other):
        return type(other) is Numbers and list(self) == list(other) and self.note == other.note

    __hash__ = None


class Mapping(dict):
    pass


class Trouble(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.more = text * 2

    def __eq__(self, other):
        return self.args == other.args and self.more == other.more

    __hash__ = None


class Outer:
    class Inner(Said):
        pass


SAYING = [
    *(Reduces, ReducesEx, GetsState, SetsState, NewArguments, NewArgumentsEx, News, Attributes),
    *(Slots, SlotsAndDict, Named, Outer.Inner),
]


# -- in a worker -----------------------------------------------------------------------------------


def echo(value):
    return value


def facts(instance):
    """What a worker sees."""
    return type(instance).__qualname__, sorted(vars(instance).items())


def are_one(value):
    return value[0] is value[1]
