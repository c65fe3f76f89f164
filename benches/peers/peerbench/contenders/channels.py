"""Queues and pipes: ways to pass messages between processes or threads.

An adapter opens a channel and hands over plain callables for both ends, so that the
loop that is timed is the same for all. Processes are made by the library's own
Process class (its queues may need its start-up hooks), by fork.
"""

import importlib

PROCESS, THREAD = "process queue", "thread queue"


class Channel:
    many_to_many = True
    get_many = None  # set where the library takes several messages at once

    def open(self):
        raise NotImplementedError

    def close(self):
        pass


class QueueOf(Channel):
    """module.Queue() or module.SimpleQueue() of anything like multiprocessing."""

    def __init__(self, _, module, cls):
        self.module, self.cls = module, cls

    def open(self):
        self.context = importlib.import_module(self.module).get_context("fork")
        self.Process = self.context.Process
        queue = getattr(self.context, self.cls)()
        self.put, self.get = queue.put, queue.get


class PipeOf(Channel):
    many_to_many = False

    def __init__(self, _, module):
        self.module = module

    def open(self):
        self.context = importlib.import_module(self.module).get_context("fork")
        self.Process = self.context.Process
        reader, writer = self.context.Pipe(duplex=False)
        self.put, self.get = writer.send, reader.recv


class ManagerQueue(QueueOf):
    """A queue.Queue that lives in the manager's server process."""

    def __init__(self, _, module):
        super().__init__(_, module, "Queue")

    def open(self):
        self.context = importlib.import_module(self.module).get_context("fork")
        self.Process = self.context.Process
        self._manager = self.context.Manager()
        queue = self._manager.Queue()
        self.put, self.get = queue.put, queue.get

    def close(self):
        self._manager.shutdown()


class FasterFifo(Channel):
    PATIENCE = 100  # its default gives up after 10 s

    def __init__(self, _, many):
        self.many = many

    def open(self):
        from multiprocessing import get_context

        import faster_fifo
        import faster_fifo_reduction  # noqa: F401  its documented second import

        self.Process = get_context("fork").Process
        queue = faster_fifo.Queue(max_size_bytes=10_000_000)
        self.put = lambda message: queue.put(message, timeout=self.PATIENCE)
        self.get = lambda: queue.get(timeout=self.PATIENCE)
        if self.many:
            self.get_many = lambda: queue.get_many(timeout=self.PATIENCE, max_messages_to_get=100)


class ThreadQueue(Channel):
    def __init__(self, _, module, cls):
        self.module, self.cls = module, cls

    def open(self):
        queue = getattr(importlib.import_module(self.module), self.cls)()
        self.put, self.get = queue.put, queue.get


def entries(Contender):
    def one(name, kind, requires, adapter, counterpart=None, **options):
        return Contender(name, kind, requires, lambda n: adapter(n, **options), counterpart)

    for owner, module in (
        ("stdlib", "multiprocessing"),
        ("multiprocess", "multiprocess"),
        ("billiard", "billiard"),
        ("oxgang", "oxgang.multiprocessing"),
    ):

        def twin(what):
            return "stdlib-" + what if owner == "oxgang" else None

        root = module.split(".")[0]
        for what, cls in (("queue", "Queue"), ("simplequeue", "SimpleQueue")):
            yield one(f"{owner}-{what}", PROCESS, root, QueueOf, twin(what), module=module, cls=cls)
        yield one(f"{owner}-pipe", PROCESS, root, PipeOf, twin("pipe"), module=module)
        if owner in ("stdlib", "oxgang"):
            yield one(
                f"{owner}-manager-queue",
                PROCESS,
                root,
                ManagerQueue,
                twin("manager-queue"),
                module=module,
            )
    yield one("faster-fifo", PROCESS, "faster_fifo", FasterFifo, many=False)
    yield one("faster-fifo-many", PROCESS, "faster_fifo", FasterFifo, many=True)
    for owner, module in (("stdlib", "queue"), ("oxgang", "oxgang.queue")):
        for what, cls in (("thread-queue", "Queue"), ("thread-simplequeue", "SimpleQueue")):
            yield one(
                f"{owner}-{what}",
                THREAD,
                module.split(".")[0],
                ThreadQueue,
                "stdlib-" + what if owner == "oxgang" else None,
                module=module,
                cls=cls,
            )
