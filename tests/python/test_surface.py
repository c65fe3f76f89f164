"""Everything public of `multiprocessing` is there, with the standard signatures."""

import importlib
import inspect
import multiprocessing as standard
import pkgutil

import oxgang.multiprocessing as ours
import pytest

# for other systems, or how the standard module is made
NOT_HERE = {"popen_spawn_win32"}
# what these take besides comes after, by name: a call that the standard one takes is taken
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(standard.__path__)
    if name.rpartition(".")[2] not in NOT_HERE
)
CONTEXT_METHODS = [name for name in dir(standard.get_context("fork")) if not name.startswith("_")]


def public(module):
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def takes_what_it_takes(own, known):
    """Whether every call that `known` takes is one that `own` takes."""
    try:
        wanted = list(inspect.signature(known).parameters.values())
        found = inspect.signature(own).parameters
    except (TypeError, ValueError):
        return True  # built in: it says nothing
    kinds = {parameter.kind for parameter in found.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL in kinds:
        return True
    names = list(found)
    positional = [parameter.name for parameter in wanted if parameter.kind < 2]
    return names[: len(positional)] == positional and {p.name for p in wanted} <= set(found)


@pytest.mark.parametrize("name", MODULES)
def test_names_of_modules(name):
    known = importlib.import_module(f"multiprocessing.{name}")
    own = importlib.import_module(f"oxgang.multiprocessing.{name}")
    assert own is not known
    missing = [one for one in public(known) if not hasattr(own, one)]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "context"])
def test_signatures_of_modules(name):
    known = importlib.import_module(f"multiprocessing.{name}")
    own = importlib.import_module(f"oxgang.multiprocessing.{name}")
    for one in public(known):
        of_theirs, of_ours = getattr(known, one), getattr(own, one)
        if callable(of_theirs):
            assert takes_what_it_takes(of_ours, of_theirs), one


def test_names_of_the_package():
    assert set(standard.__all__) <= set(ours.__all__)
    assert [name for name in standard.__all__ if not hasattr(ours, name)] == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "template", None])
def test_contexts(method):
    context = ours.get_context(method)
    known = standard.get_context(None if method == "template" else method)
    for name in CONTEXT_METHODS:
        of_ours = getattr(context, name)
        if callable(of_ours) and not isinstance(of_ours, type):
            assert takes_what_it_takes(of_ours, getattr(known, name)), name
    assert isinstance(context, standard.context.BaseContext)
    assert context.get_context("fork").get_start_method() == "fork"
    with pytest.raises(ValueError, match="cannot find context"):
        context.get_context("bad")


def test_the_start_method_may_be_set_again():
    before = standard.get_start_method(allow_none=True)
    try:
        for method in ("spawn", "template", "forkserver", "template", "fork"):
            ours.set_start_method(method)
            assert ours.get_start_method() == ours.get_context().get_start_method() == method
        ours.set_start_method("template")
        standard.set_start_method("spawn", force=True)
        assert ours.get_start_method() == "spawn"  # whichever set it last
        with pytest.raises(ValueError, match="cannot find context"):
            ours.set_start_method("bad")
        ours.set_start_method(None)
        assert ours.get_start_method(allow_none=True) is None
        assert ours.get_start_method() == ours.get_all_start_methods()[0]
    finally:
        ours.set_start_method(before)


def test_helpers():
    assert ours.cpu_count() == standard.cpu_count()
    assert ours.current_process() is standard.current_process()
    assert ours.parent_process() is None and ours.active_children() == []
    ours.freeze_support()
    logger = ours.get_logger()
    assert logger is standard.get_logger()
    handlers = list(logger.handlers)
    try:
        assert ours.log_to_stderr() is logger
    finally:
        logger.handlers[:] = handlers
        standard.util._log_to_stderr = False
