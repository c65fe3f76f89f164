"""`multiprocessing.managers`: objects in a process of their own, and proxies for them.

Signatures and behaviour are the standard library's (`set()` is 3.14's). What is different:

* Calls from processes of the same machine go through shared memory; what they cost is in
  docs/managers.md. A peer on the standard library is served all the same, either way round.
* A manager ends with the process that started it, however that ends.
* When a manager has ended, its proxies raise `oxgang.errors.ManagerDied` at once.
* Proxies can be iterated in every process, and may call from signal handlers.
"""

import contextlib
import os
import queue
import signal
import threading
from multiprocessing import connection as _connection
from multiprocessing import managers as _standard
from multiprocessing import process, util
from multiprocessing.context import ProcessError
from multiprocessing.managers import (
    Array,
    Namespace,
    ProcessLocalSet,
    RemoteError,
    State,
    Token,
    Value,
    all_methods,
    convert_to_error,
    public_methods,
)

from oxgang.errors import ManagerDied
from oxgang.multiprocessing import _listener, _proxies, _wire, context, pool
from oxgang.multiprocessing._proxies import (
    AcquirerProxy,
    ArrayProxy,
    AutoProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,
    BaseProxy,
    BaseSetProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    NamespaceProxy,
    PoolProxy,
    RebuildProxy,
    SetProxy,
    ValueProxy,
)
from oxgang.multiprocessing._server import Server, SharedMemoryServer
from oxgang.multiprocessing._wire import dispatch

__all__ = [
    "AcquirerProxy",
    "Array",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseListProxy",
    "BaseManager",
    "BasePoolProxy",
    "BaseProxy",
    "BaseSetProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "ProcessLocalSet",
    "RebuildProxy",
    "RemoteError",
    "Server",
    "SetProxy",
    "SharedMemoryManager",
    "SharedMemoryServer",
    "State",
    "SyncManager",
    "Token",
    "Value",
    "ValueProxy",
    "all_methods",
    "convert_to_error",
    "dispatch",
    "listener_client",
    "public_methods",
]

listener_client = {
    "pickle": (_listener.Listener, _listener.Client),
    "xmlrpclib": (_listener.XmlListener, _listener.XmlClient),
}


class BaseManager(_standard.BaseManager):
    """A process that holds objects, and the way to it; as `multiprocessing.managers.BaseManager`.

    Args:
        address: Where its server listens: a path, ``(host, port)``, or None: a fresh path.
        authkey: Bytes that whoever connects must have; None: the current process's.
        serializer: ``"pickle"`` or ``"xmlrpclib"``.
        ctx: What makes its process; None: the default context.
        shutdown_timeout: Seconds that the server has to end by itself, and again to end by
            SIGTERM, before it is killed.
    """

    _registry = {}  # noqa: RUF012 each class that registers has its own
    _Server = Server
    _process = None

    def __init__(
        self, address=None, authkey=None, serializer="pickle", ctx=None, *, shutdown_timeout=1.0
    ):
        if authkey is None:
            authkey = process.current_process().authkey
        self._address = address
        self._authkey = process.AuthenticationString(authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or context._default_context.get_context()
        self._shutdown_timeout = shutdown_timeout

    def _check_initial(self):
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value != State.INITIAL:
            raise ProcessError("Manager has shut down")

    def get_server(self):
        """The server itself, to be run in this process by ``serve_forever()``.

        Raises:
            ProcessError: the manager has been started or connected already.
        """
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self):
        """Uses the server that listens at the address already.

        Raises:
            OSError: nobody listens there. AuthenticationError: it has another authkey.
        """
        connection = self._Client(self._address, authkey=self._authkey)
        try:
            dispatch(connection, None, "dummy")
        finally:
            connection.close()
        self._state.value = State.STARTED

    def start(self, initializer=None, initargs=()):
        """Starts the manager's process, which runs ``initializer(*initargs)`` first.

        Raises:
            ProcessError: the manager has been started or connected already.
            ManagerDied: the process ended before it could serve; what it printed says why.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        address = self._address
        if address is None:
            # in a folder of this process: it goes with it, even if the server is killed
            address = _connection.arbitrary_address("AF_UNIX")
        reader, writer = _connection.Pipe(duplex=False)
        with reader:
            with writer:
                self._process = self._ctx.Process(
                    target=type(self)._run_server,
                    args=(
                        self._registry,
                        address,
                        self._authkey,
                        self._serializer,
                        writer,
                        initializer,
                        initargs,
                    ),
                )
                identity = ":".join(str(number) for number in self._process._identity)
                self._process.name = f"{type(self).__name__}-{identity}"
                self._process.start()
            self._address = self._wait_for_server(reader)
        self._state.value = State.STARTED
        self.shutdown = util.Finalize(
            self,
            type(self)._finalize_manager,
            args=(
                self._process,
                self._address,
                self._authkey,
                self._state,
                self._Client,
                self._shutdown_timeout,
            ),
            exitpriority=0,
        )

    def _wait_for_server(self, reader):
        started = self._process
        ready = _connection.wait([reader, started.sentinel])
        try:
            if reader in ready:
                return reader.recv()
        except EOFError:
            pass  # it has hung up, and so it ends
        started.join()
        self._process = None
        raise ManagerDied(
            f"the manager process ({started.pid}) ended with exit code {started.exitcode} before "
            "it could serve; what it wrote to stderr says why",
            pid=started.pid,
        )

    @classmethod
    def _run_server(  # noqa: PLR0917 the standard signature
        cls, registry, address, authkey, serializer, writer, initializer=None, initargs=()
    ):
        # Ctrl-C in a terminal is the owner's to handle
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if initializer is not None:
            initializer(*initargs)
        server = cls._Server(registry, address, authkey, serializer)
        parent = process.parent_process()
        if parent is not None:
            arguments = (parent, server.stop_event)
            threading.Thread(target=_end_with, args=arguments, daemon=True).start()
        writer.send(server.address)
        writer.close()
        util.info("manager serving at %r", server.address)
        server.serve_forever()

    def _ask(self, name, args=(), kwds=_wire.NO_KWDS):
        """What the server answers."""
        home = _wire.home_of(self._address)
        return home.ask(self._authkey, self._Client, name, args, kwds)

    def _create(self, typeid, /, *args, **kwds):
        assert self._state.value == State.STARTED, "server not yet started"
        ident, exposed = self._ask("create", (typeid, *args), kwds)
        return Token(typeid, self._address, ident), exposed

    def join(self, timeout=None):
        """Waits until the process that `start` made has ended, for `timeout` seconds at most."""
        if self._process is not None:
            self._process.join(timeout)
            if not self._process.is_alive():
                self._process = None

    def _debug_info(self):
        return self._ask("debug_info")

    def _number_of_objects(self):
        return self._ask("number_of_objects")

    def __enter__(self):
        if self._state.value == State.INITIAL:
            self.start()
        if self._state.value != State.STARTED:
            raise ProcessError("Manager has shut down")
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.shutdown()

    @staticmethod
    def _finalize_manager(process, address, authkey, state, _Client, shutdown_timeout):
        if process.is_alive():
            util.info("sending shutdown message to manager")
            try:
                connection = _Client(address, authkey=authkey)
                try:
                    dispatch(connection, None, "shutdown")
                finally:
                    connection.close()
            except Exception as error:
                util.info("the manager does not take the message: %r", error)
            process.join(timeout=shutdown_timeout)
            if process.is_alive():
                util.info("manager still alive; terminating it")
                process.terminate()
                process.join(timeout=shutdown_timeout)
            if process.is_alive():
                util.info("manager still alive after terminate; killing it")
                process.kill()
                process.join()
        state.value = State.SHUTDOWN
        address = _wire.plain(address)
        _wire.homes.pop(address, None)
        if isinstance(address, str) and not address.startswith("\0"):
            with contextlib.suppress(OSError):
                os.unlink(address)  # if the server was killed

    @classmethod
    def register(  # noqa: PLR0917 the standard signature
        cls,
        typeid,
        callable=None,
        proxytype=None,
        exposed=None,
        method_to_typeid=None,
        create_method=True,
    ):
        """Makes a type known to managers of this class.

        Args:
            typeid: Its name.
            callable: What makes an object of it, in the server; None: only methods do.
            proxytype: The class of proxies; None: one that is made from the object's methods.
            exposed: Names of the methods that proxies may call; None: ``_exposed_`` of the proxy
                type, or else all public ones.
            method_to_typeid: Methods whose results are to stay in the server, and as what.
            create_method: Whether managers get a method of that name.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        proxytype = proxytype or AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for pair in (method_to_typeid or {}).items():
            for name in pair:
                assert type(name) is str, f"{name!r} is not a string"
        cls._registry[typeid] = (callable, exposed, method_to_typeid, proxytype)
        if create_method:
            setattr(cls, typeid, _maker(typeid, proxytype))


def _maker(typeid, proxytype):
    def make(self, /, *args, **kwds):
        util.debug("requesting creation of a shared %r object", typeid)
        token, exposed = self._create(typeid, *args, **kwds)
        proxy = proxytype(
            token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
        )
        self._ask("decref", (token.id,))
        return proxy

    make.__name__ = typeid
    return make


def _end_with(parent, stop):
    """Waits for the end of the process that this one belongs to."""
    handles = [parent.sentinel]
    with contextlib.suppress(OSError):
        # other children of a forking parent hold the sentinel's pipe open
        handles.append(os.pidfd_open(parent.pid))
    if not _connection.wait(handles[:1], 0):
        _connection.wait(handles)
    stop.set()


class SyncManager(BaseManager):
    """A manager of dicts, lists, sets, queues, locks and their kin; what
    `multiprocessing.Manager()` starts."""


SyncManager.register("Queue", queue.Queue)
SyncManager.register("JoinableQueue", queue.Queue)
SyncManager.register("Event", threading.Event, EventProxy)
SyncManager.register("Lock", threading.Lock, AcquirerProxy)
SyncManager.register("RLock", threading.RLock, AcquirerProxy)
SyncManager.register("Semaphore", threading.Semaphore, AcquirerProxy)
SyncManager.register("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy)
SyncManager.register("Condition", threading.Condition, ConditionProxy)
SyncManager.register("Barrier", threading.Barrier, BarrierProxy)
SyncManager.register("Pool", pool.Pool, PoolProxy)
SyncManager.register("list", list, ListProxy)
SyncManager.register("dict", dict, DictProxy)
SyncManager.register("set", set, SetProxy)
SyncManager.register("Value", Value, ValueProxy)
SyncManager.register("Array", Array, ArrayProxy)
SyncManager.register("Namespace", Namespace, NamespaceProxy)
# what methods of these make
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)

_proxies._default_registry = SyncManager._registry


class SharedMemoryManager(BaseManager):
    """A manager of blocks of shared memory: they are destroyed when it shuts down."""

    _Server = SharedMemoryServer

    def __init__(self, *args, **kwargs):
        from multiprocessing import resource_tracker

        # one for this process and the server, or each would take the other's blocks for lost
        resource_tracker.ensure_running()
        super().__init__(*args, **kwargs)

    def SharedMemory(self, size):
        """A new block of `size` bytes."""
        from oxgang.multiprocessing import shared_memory

        block = shared_memory.SharedMemory(None, create=True, size=size)
        self._track(block)
        return block

    def ShareableList(self, sequence):
        """A new list in shared memory, with the items of `sequence`."""
        from oxgang.multiprocessing import shared_memory

        made = shared_memory.ShareableList(sequence)
        self._track(made.shm)
        return made

    def _track(self, block):
        try:
            self._ask("track_segment", (block.name,))
        except BaseException:
            block.close()
            block.unlink()
            raise
