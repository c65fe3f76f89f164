"""Fixtures of the Python tests: pools, engines, a folder to meet in."""

import concurrent.futures as standard
import gc
import warnings

import oxgang.concurrent.futures as ours
import pytest
from pools import MAKERS
from tasks import Folder


@pytest.fixture(params=MAKERS)
def make_pool(request):
    """Makes an executor, the standard's or ours; the test closes it."""
    return MAKERS[request.param]


SHAPES = {"thread": {}, "processes": {"processes": 2}}


@pytest.fixture(params=SHAPES)
def shape(request):
    """Options of a pool of coroutines, which make it one or the other kind."""
    return SHAPES[request.param]


@pytest.fixture
def no_complaint(caplog):
    """No task is destroyed, no coroutine goes unawaited, no exception is lost on the way."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in seen if "never awaited" in str(one.message)] == []
    told = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert [text for text in told if "destroyed" in text] == []


@pytest.fixture(params=["thread", "process"])
def model(request):
    return request.param


@pytest.fixture(params=[(True, 0), (False, 0), (True, 1), (False, 1)], ids=str)
def engine(request):
    """The options that lead to each engine and order."""
    ordered, retries = request.param
    return {"ordered": ordered, "retries": retries}


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path)
    yield folder
    folder.mark("go")  # whatever still waits may end


@pytest.fixture
def stoppable(monkeypatch):
    """Sees to it that process pools can kill their workers (standard ones only from 3.14)."""
    if hasattr(ours.ProcessPoolExecutor, "kill_workers"):
        return

    class Pool(standard.ProcessPoolExecutor):
        def kill_workers(self):
            for process in list(self._processes.values()):
                process.kill()

    def terminate_broken(manager, cause):
        # Before 3.12 a cancelled future that is still listed ends the manager by an error.
        for number, item in list(manager.pending_work_items.items()):
            if item.future.cancelled():
                del manager.pending_work_items[number]
        original(manager, cause)

    original = standard.process._ExecutorManagerThread.terminate_broken
    monkeypatch.setattr(
        standard.process._ExecutorManagerThread, "terminate_broken", terminate_broken
    )
    monkeypatch.setattr(ours, "ProcessPoolExecutor", Pool)
