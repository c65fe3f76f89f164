"""A client's ways to the server of a manager, each used by one thread and one call at a time.

A thread keeps its ways for the next calls, so that the server's thread, which owns the RLocks that
were taken through it, stays the same. A call takes a way out of the thread's store and puts it
back; whoever calls in between, in the same thread (a signal handler, a finalizer run by the
collector), finds none and opens another. A way on which a call was left half done (Ctrl-C) is
closed, and never used again: the answer that is still to come would be taken for the next one's.

After a fork the child has no ways: it opens its own.
"""

import contextlib
import io
import os
import pickle
import threading
import weakref
from multiprocessing import managers as _standard
from multiprocessing import process, util
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from oxgang import _core
from oxgang.errors import ManagerDied
from oxgang.multiprocessing import _listener

NO_KWDS = {}  # looked at, never changed

_peer = threading.local()
_stores = weakref.WeakSet()


@contextlib.contextmanager
def standard_peer():
    """What this thread pickles meanwhile is for a peer that may know nothing of this package."""
    before = speaks_standard()
    _peer.standard = True
    try:
        yield
    finally:
        _peer.standard = before


def speaks_standard():
    """Whether what is pickled now must be found in the standard library."""
    return getattr(_peer, "standard", False)


class Ways(util.ForkAwareLocal):
    """The ways of each thread to one server."""

    def __init__(self):
        super().__init__()
        _stores.add(self)


def _after_fork_in_child():
    _peer.__dict__.clear()
    for ways in list(_stores):
        ways.__dict__.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Standard:
    """The standard wire: pickled tuples through a connection."""

    def __init__(self, connection, address, pid):
        self._connection = connection
        self._address = address
        self._pid = pid
        self.known = pid is not None  # whether the server is of this package
        self._whole = True

    def call(self, ident, name, args, kwds):
        """Kind and value of the answer."""
        with contextlib.nullcontext() if self.known else standard_peer():
            request = _dumps(self._connection, (ident, name, args, kwds))
        self._whole = False
        try:
            self._connection.send_bytes(request)
            answer = self._connection.recv_bytes()
        except (EOFError, ConnectionError) as error:
            raise gone(self._address, error, self._pid) from error
        self._whole = True
        return _loads(self._connection, answer)

    def usable(self):
        """Whether no answer is outstanding."""
        return self._whole

    def close(self):
        """Hangs up."""
        self._connection.close()


def _dumps(connection, obj):
    return getattr(connection, "_dumps", ForkingPickler.dumps)(obj)


def _loads(connection, data):
    return getattr(connection, "_loads", loads)(data)


class _Reader(pickle.Unpickler):
    """Finds our proxies where a peer of the standard library has sent its own."""

    def find_class(self, module, name):
        if module == "multiprocessing.managers":
            from oxgang.multiprocessing import _proxies

            if name in _proxies.__all__:
                return getattr(_proxies, name)
        return super().find_class(module, name)


def loads(data):
    """What came through the standard wire."""
    return _Reader(io.BytesIO(data)).load()


def receive(conn):
    """The next request of a client, whichever wire it comes by."""
    if isinstance(conn, Connection):
        return loads(conn.recv_bytes())
    return conn.recv()


def dispatch(c, id, methodname, args=(), kwds=NO_KWDS):
    """One request through a connection or a way, and its result; as
    `multiprocessing.managers.dispatch`.

    Raises:
        what the method raised, or `RemoteError` with the server's traceback.
    """
    if not hasattr(c, "call"):
        c.send((id, methodname, args, kwds))
        kind, result = c.recv()
    else:
        kind, result = c.call(id, methodname, args, kwds)
    try:
        return unwrap(kind, result)
    finally:
        del result  # or a traceback would hold the exception that holds it


def unwrap(kind, result):
    """The result, if it is one.

    Raises:
        what the method raised, or `RemoteError` with the server's traceback.
    """
    if kind == "#RETURN":
        return result
    try:
        raise _standard.convert_to_error(kind, result)
    finally:
        del result  # as above


def gone(address, error, pid=None):
    """The error for a server that is no more."""
    who = f"at {address!r}" if pid is None else f"process ({pid})"
    return ManagerDied(f"the manager {who} has ended, or does not listen: {error}", pid=pid)


def put_back(ways, way):
    """A thread keeps a way for its next call, if that can be made on it."""
    if not way.usable():
        way.close()
    elif hasattr(ways, "idle"):
        ways.idle.append(way)
    else:
        ways.idle = [way]


class Home:
    """What this process knows of the server at one address."""

    def __init__(self, address):
        self.address = address
        self.ways = Ways()
        self.idset = _standard.ProcessLocalSet()
        self.is_standard = False
        self.pid = None  # of the server, as far as it has said
        self.has_line = True  # as far as is known: descriptors may not pass, in a sandbox
        self._authkey = None

    def authkey_or(self, authkey):
        """What opens the server: `authkey`, or what has opened it before, or the process's own."""
        if authkey is not None:
            self._authkey = process.AuthenticationString(authkey)
        return self._authkey or process.current_process().authkey

    def __iter__(self):
        return iter((self.ways, self.idset))  # all that the standard library keeps

    def open(self, authkey, client):
        """A new way to the server.

        Raises:
            ManagerDied: nobody listens there, or no more.
            AuthenticationError: it has another authkey.
        """
        name = process.current_process().name
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            name = f"{name}|{thread.name}"
        util.debug("making connection to manager")
        with self._no_more():
            way = None
            if not self.is_standard and client is _listener.Client:
                way = self._open_own(authkey, name)
                self.is_standard = way is None
            if way is None:
                connection = client(self.address, authkey=authkey)
                dispatch(connection, None, "accept_connection", (name,))
                way = Standard(connection, self.address, None)
        return way

    def _open_own(self, authkey, name):
        """A way to a server of this package; None: it is none."""
        connection = _listener.Client(self.address, authkey=authkey)
        connection.send((None, "accept_line", (name, self.has_line), {}))
        kind, found = connection.recv()
        if kind != "#RETURN":
            connection.close()
            return None  # a standard server does not know the word
        self.pid, has_line = found
        if not has_line:
            return Standard(connection, self.address, self.pid)
        fd = os.dup(connection.fileno())
        connection.close()
        try:
            return _core.Line.take_up(fd)
        except OSError as error:
            util.info("no line to the manager, the standard wire instead: %s", error)
            self.has_line = False
            return self._open_own(authkey, name)

    def ask(self, authkey, client, name, args=(), kwds=NO_KWDS):
        """What the server itself, not one of its objects, answers."""
        idle = self.ways.__dict__.get("idle")
        way = idle.pop() if idle else self.open(authkey, client)
        try:
            if way.known:
                return dispatch(way, None, name, args, kwds)
        finally:
            put_back(self.ways, way)
        return self.ask_once(authkey, client, name, args, kwds)

    def ask_once(self, authkey, client, name, args=(), kwds=NO_KWDS):
        """The same, through a connection for this question alone."""
        with self._no_more():
            connection = client(self.address, authkey=authkey)
            try:
                return dispatch(connection, None, name, args, kwds)
            finally:
                connection.close()

    def forget(self, authkey, client, ident):
        """This process has one reference less. For finalizers: they have nobody to tell if the
        server has ended meanwhile, and open no way that nobody may ever use again."""
        idle = self.ways.__dict__.get("idle")
        ask = self.ask if idle and idle[-1].known else self.ask_once
        try:
            ask(authkey, client, "decref", (ident,))
        except Exception as error:
            util.debug("... decref failed %s", error)

    @contextlib.contextmanager
    def _no_more(self):
        try:
            yield
        except ManagerDied:
            raise
        except (ConnectionError, FileNotFoundError, EOFError) as error:
            raise gone(self.address, error, self.pid) from error


homes = {}


def home_of(address):
    """What is known of the server at `address`."""
    address = plain(address)
    # no lock: a finalizer, which comes here, may run in the midst of this
    return homes.get(address) or homes.setdefault(address, Home(address))


def plain(address):
    """One and the same for one address: the kernel gives names without a file back as bytes."""
    return os.fsdecode(address) if isinstance(address, bytes) else address
