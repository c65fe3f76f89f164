"""Instances of classes: they arrive as pickle would bring them, whether pickle is asked or not."""

import copyreg
import pickle
import sys
import types
from multiprocessing.reduction import ForkingPickler

import hypothesis
import instances
import oxgang.multiprocessing
import pytest
from hypothesis import strategies as st
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import PayloadError


@pytest.fixture(scope="module", params=["standard", "oxgang"])
def through(request):
    """There and back: as a message of a queue to this very process, as standard ones are made."""
    if request.param == "standard":
        yield lambda value: pickle.loads(ForkingPickler.dumps(value))
        return
    queue = oxgang.multiprocessing.SimpleQueue()

    def through(value):
        queue.put(value)
        return queue.get()

    yield through
    queue.close()


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


def usual(value):
    return pickle.loads(pickle.dumps(value))


def dict_of(instance):
    """Its dict, and not what its class says about it."""
    return object.__getattribute__(instance, "__dict__")


PLAIN = {
    "empty": instances.Plain(),
    "dataclass": instances.Point(1, "two"),
    "deep": instances.Point(instances.Point([instances.Point({"a": (1, 2.5)}, None)], b"x"), True),
    "frozen": instances.Frozen("name", (1, "x", None)),
    "inherited": instances.Child.made(one=1, two=[2]),
    "abstract base": instances.Square(3),
    "generic": instances.Box(7),
    "empty slots above": instances.WithDict(),
    "unusual names": instances.Child.made(**{"not a name": 1, "\u03b1": 2, "_x": 3, "a\0b": 4}),
    "empty name": instances.Child.made(**{"": 1}),
    "many": instances.Child.made(**{f"attribute_{n}": n for n in range(3000)}),
    "long": instances.Point("x" * 100_000, b"y" * 100_000),
    "shape of its own": instances.Child.made(__reduce__=1),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_instances(through, name):
    sent = PLAIN[name]
    if name == "shape of its own":
        sent = instances.Child.made(__getstate__=lambda: {"state": "its own"})
    for _ in range(3):
        arrived, expected = through(sent), usual(sent)
        assert type(arrived) is type(sent) and arrived is not sent
        assert list(dict_of(arrived)) == list(dict_of(expected))
        assert pickle.dumps(arrived) == pickle.dumps(expected)


def test_in_a_worker(pool):
    point = instances.Point(instances.Frozen("a"), [1, 2])
    assert pool.submit(instances.facts, point).result() == (
        "Point",
        [("x", instances.Frozen("a")), ("y", [1, 2])],
    )
    assert pool.submit(instances.echo, [point, {"key": point.x}]).result() == [
        point,
        {"key": point.x},
    ]
    assert pool.submit(instances.Point, x=1, y=point).result() == instances.Point(1, point)


def test_names_of_attributes_are_interned(through):
    (name,) = dict_of(through(instances.Child.made(**{"".join(["attri", "bute"]): 1})))
    assert name is sys.intern("attribute")


def test_an_instances_dict_is_filled_without_asking(through):
    sent = object.__new__(instances.Guarded)
    sent.__dict__.update(size=3, other=4)
    arrived = through(sent)
    assert (dict_of(arrived), arrived.size) == ({"size": 3, "other": 4}, -1)
    cached = instances.Cached()
    assert cached.answer == 42
    assert dict_of(through(cached)) == {"answer": 42}


@pytest.mark.parametrize("cls", instances.SAYING)
def test_what_has_a_say_has_it(through, cls):
    sent = cls()
    assert through(sent) == usual(sent)
    assert through([sent, 1]) == [usual(sent), 1]


def test_kinds_of_built_in_classes(through):
    for sent in (instances.Numbers(1, 2), instances.Mapping(a=1), instances.Trouble("x")):
        assert through(sent) == usual(sent) and type(through(sent)) is type(sent)


def test_an_instance_that_says_it_is_another(through):
    class Liar:
        __class__ = property(lambda self: int)

    Liar.__qualname__ = "Liar"
    instances.Liar, Liar.__module__ = Liar, "instances"
    try:
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(Liar())
        with pytest.raises(pickle.PicklingError):
            through(Liar())
    finally:
        del instances.Liar


def test_what_comes_twice_stays_one(through):
    one = instances.Point(1, 2)
    first, second = through([one, one])
    assert first is second
    ring = instances.Point(None)
    ring.x = ring
    arrived = through(ring)
    assert arrived.x is arrived
    shared = (1, "x" * 500)
    arrived = through([instances.Point(shared), instances.Point(shared)])
    assert arrived[0].x is arrived[1].x
    names = [instances.Point(n) for n in range(3)]
    arrived = through(instances.Point(names, names[1]))
    assert arrived.y is arrived.x[1]


def test_identity_in_a_worker(pool):
    one = instances.Point(1)
    assert pool.submit(instances.are_one, [one, one]).result()
    assert not pool.submit(instances.are_one, [one, instances.Point(1)]).result()


# -- a class that changes --------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """A class, and one above it, that a test may change."""

    class Above:
        pass

    class Fresh(Above):
        pass

    for cls in (Above, Fresh):
        cls.__module__, cls.__qualname__ = "instances", cls.__name__
        monkeypatch.setattr(instances, cls.__name__, cls, raising=False)
    return Fresh


def fresh_instance(cls):
    instance = cls()
    instance.way = "dict"
    return instance


def made_by_reduce(self):
    return fresh_instance_by, (type(self), "reduced")


def fresh_instance_by(cls, way):
    instance = object.__new__(cls)
    object.__setattr__(instance, "way", way)
    return instance


@pytest.mark.parametrize("at", [0, 1], ids=["class", "base"])
def test_a_class_that_gets_a_say_later(through, fresh, at):
    sent = fresh_instance(fresh)
    for _ in range(2):
        assert through(sent).way == "dict"
    changed = fresh.__mro__[at]
    changed.__reduce__ = made_by_reduce
    assert through(sent).way == "reduced"
    del changed.__reduce__
    assert through(sent).way == "dict"
    changed.__setstate__ = lambda self, state: self.__dict__.update(way=f"{state['way']} set")
    assert through(sent).way == "dict set"
    del changed.__setstate__
    changed.way = property(lambda self: "asked")
    arrived = through(sent)
    assert (arrived.way, dict_of(arrived)) == ("asked", {"way": "dict"})
    del changed.way
    fresh.__bases__ = (instances.Reduces,)
    assert through(sent).way == "reduced"


@pytest.mark.parametrize("register", [copyreg.pickle, ForkingPickler.register])
def test_a_class_with_a_reducer_of_somebody_elses(through, fresh, register):
    tables = copyreg.dispatch_table, ForkingPickler._extra_reducers
    sent = fresh_instance(fresh)
    assert through(sent).way == "dict"
    register(fresh, made_by_reduce)
    try:
        assert through(sent).way == "reduced"
    finally:
        for table in tables:
            table.pop(fresh, None)
    assert through(sent).way == "dict"


def test_a_class_that_cannot_be_found_by_its_name(through, fresh, monkeypatch):
    sent = fresh_instance(fresh)
    assert through(sent).way == "dict"
    monkeypatch.setattr(instances, "Fresh", instances.Plain)
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(sent)
    try:
        arrived = through(sent)
    except pickle.PicklingError:
        return  # as the standard one
    assert arrived.way == "dict" and type(arrived).__name__ == "Fresh"  # it went by value


def test_a_module_that_is_gone_where_it_arrives(pool):
    module = types.ModuleType("only_here")
    exec("class Lost:\n    pass", module.__dict__)
    sys.modules["only_here"] = module
    try:
        future = pool.submit(instances.echo, module.Lost())
        with pytest.raises(PayloadError, match="No module named 'only_here'"):
            future.result()
    finally:
        del sys.modules["only_here"]
    assert pool.submit(instances.echo, 1).result() == 1


def test_a_class_that_is_gone_where_it_arrives(through, fresh, monkeypatch, pool):
    with pytest.raises(PayloadError, match=r"attribute 'Fresh'"):
        pool.submit(instances.echo, fresh_instance(fresh)).result()


# -- anything --------------------------------------------------------------------------------------

NUMBERS = st.booleans() | st.integers() | st.floats(allow_nan=False)
LEAVES = st.none() | NUMBERS | st.text(max_size=200)
CLASSES = st.sampled_from([instances.Plain, instances.Point, instances.Child, instances.WithDict])


@st.composite
def instance(draw, values):
    made = object.__new__(draw(CLASSES))
    made.__dict__.update(draw(st.dictionaries(st.text(max_size=8), values, max_size=4)))
    return made


VALUES = st.recursive(
    LEAVES,
    lambda values: (
        instance(values)
        | st.lists(values, max_size=4)
        | st.dictionaries(st.text(max_size=8), values, max_size=4)
        | st.tuples(values, values).map(lambda two: [two, two, two[0]])
    ),
    max_leaves=30,
)


def shape_of(value, seen):
    """All that can be told of a value: what is in it, and what in it is one object."""
    if isinstance(value, (list, tuple, dict, instances.Plain, instances.Point, instances.WithDict)):
        if id(value) in seen:
            return ("again", seen[id(value)])
        seen[id(value)] = len(seen)
    if isinstance(value, (list, tuple)):
        return (type(value), [shape_of(item, seen) for item in value])
    if isinstance(value, dict):
        return (dict, [(key, shape_of(item, seen)) for key, item in value.items()])
    if hasattr(value, "__dict__"):
        return (type(value), shape_of(vars(value), {}), len(seen))
    return value


@hypothesis.given(value=VALUES)
@hypothesis.settings(deadline=None, max_examples=300)
def test_anything_arrives_as_pickle_brings_it(through, value):
    assert shape_of(through(value), {}) == shape_of(usual(value), {})
