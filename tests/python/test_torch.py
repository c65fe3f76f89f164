"""torch's tensors through pools, queues and pipes; where torch is installed."""

import gc

import pytest
from oxgang import multiprocessing
from oxgang.concurrent.futures import ProcessPoolExecutor

torch = pytest.importorskip("torch")

LONG = 1 << 20


def kinds():
    long = torch.arange(LONG, dtype=torch.float32)
    table = long.reshape(1024, 1024)
    return {
        "long": long,
        "short": torch.arange(5),
        "empty": torch.empty((0, 3)),
        "number": torch.tensor(2.5),
        "columns": table.t(),
        "slice": table[3:700:2, 5:],
        "expanded": torch.tensor([1.0, 2.0]).expand(4, 2),
        "halves": long.to(torch.bfloat16),
        "truths": long > 5,
        "complex": torch.complex(long, long),
        "wants a gradient": torch.ones(LONG, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(LONG)),
    }


def same(value):
    return value


def write(tensor):
    tensor += 1
    return float(tensor.sum())


def make(count):
    return torch.full((count,), 7.0)


def put(queue, *values):
    for value in values:
        queue.put(value)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("name", kinds())
def test_there_and_back(pool, name):
    sent = kinds()[name]
    back = pool.submit(same, sent).result()
    assert type(back) is type(sent) and back.dtype == sent.dtype
    assert back.requires_grad == sent.requires_grad
    assert back.stride() == sent.stride() or sent.numel() == 0
    assert torch.equal(back, sent)
    assert not back.is_shared() and not sent.is_shared()


def test_it_is_the_receivers_own(pool):
    tensor = torch.zeros(LONG)
    assert pool.submit(write, tensor).result() == LONG
    assert not tensor.any()
    tensor += 2  # seen by nobody
    assert pool.submit(write, tensor).result() == 3 * LONG


def test_views_of_one_storage_arrive_as_such(pool):
    whole = torch.zeros(LONG)
    first, second = pool.submit(same, (whole[: LONG // 2], whole[LONG // 4 :])).result()
    first += 1
    assert second[0] == 1 and second[-1] == 0


def test_a_result_outlives_its_worker_and_its_pool():
    with ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(make, LONG) for _ in range(3)]
    tensors = [future.result() for future in futures]
    gc.collect()
    assert all((tensor == 7).all() for tensor in tensors)
    tensors[0][:] = 1
    assert (tensors[1] == 7).all()


def test_a_model_crosses(pool):
    model = torch.nn.Linear(700, 300)
    back = pool.submit(same, model).result()
    assert torch.equal(back.weight, model.weight) and torch.equal(back.bias, model.bias)
    assert back.weight.requires_grad


def test_what_is_shared_stays_shared():
    tensor = torch.zeros(LONG).share_memory_()
    process = multiprocessing.get_context("template").Process(target=write, args=(tensor,))
    process.start()
    process.join()
    with ProcessPoolExecutor(1) as pool:
        pool.submit(write, tensor).result()
    assert (tensor == 2).all()


def test_through_queues_and_pipes():
    context = multiprocessing.get_context("template")  # torch and its threads do not survive forks
    tensor = torch.arange(LONG)
    for queue in (context.Queue(), context.SimpleQueue()):
        process = context.Process(target=put, args=(queue, tensor, tensor[5:10]))
        process.start()
        long, short = queue.get(), queue.get()
        process.join()  # who sent is gone
        assert torch.equal(long, tensor) and short.tolist() == [5, 6, 7, 8, 9]
        long += 1
        queue.close()
    one, other = context.Pipe()
    one.send(tensor)
    assert torch.equal(other.recv(), tensor)
