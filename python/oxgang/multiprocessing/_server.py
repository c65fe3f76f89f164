"""The server of a manager: it holds the objects, and calls their methods for its clients.

# Who is served how

| a client | is served by |
|---|---|
| of this package, through a Unix socket | a line, see `oxgang._core.Line` |
| of this package, through TCP | the standard wire |
| the standard library's | the standard wire |

In every case a thread of its own serves it, one call after the other, as in the standard library:
an RLock in a manager belongs to that thread, and so to the client's.

# What ends it

`shutdown` from a client, or the end of the process that started it, whatever ended that.
"""

import collections
import contextlib
import os
import socket
import struct
import sys
import threading
import weakref
from multiprocessing import managers as _standard
from multiprocessing import process, util
from traceback import format_exc

from oxgang import _core
from oxgang.multiprocessing import _listener, _wire

_ALONE = ("accept_connection", "accept_line", "shutdown")  # what a connection is made for
_LAST_S = 1.0  # for what comes within a moment if it comes: the rest of somebody's end
_RETRY_S = 0.05  # after a connection that could not be taken, for want of descriptors mostly


class Server(_standard.Server):
    """What runs in a manager's process; as the standard class.

    Args:
        registry: What can be made: type id -> ``(callable, exposed, method_to_typeid, proxytype)``.
        address: Where to listen.
        authkey: Bytes that clients must have too.
        serializer: ``"pickle"`` or ``"xmlrpclib"``.
    """

    public = (*_standard.Server.public, "accept_line")

    def __init__(self, registry, address, authkey, serializer):
        super().__init__(registry, address, authkey, serializer)
        self.stop_event = threading.Event()
        self._lines = {}  # line -> the thread that serves it
        self._places = None
        self._held = collections.defaultdict(collections.Counter)  # pid -> identity -> references
        self._books = threading.Lock()
        self._local = threading.RLock()
        self._local_proxies = {}  # identity -> a key for each proxy that objects here hold
        self._client = threading.local()  # .pid: of the client that this thread serves
        # descriptors pass through sockets of the machine only, and lines have one encoding
        self._unix = _listener.address_type(_wire.plain(self.address)) == "AF_UNIX"
        self._has_lines = self._unix and serializer == "pickle"
        # for proxies among the objects: they call this very server
        _wire.home_of(self.address).authkey_or(authkey)

    # -- serving ---------------------------------------------------------------------------

    def serve_forever(self):
        """Serves until a client says `shutdown`, then ends the process."""
        process.current_process()._manager_server = self
        try:
            threading.Thread(target=self.accepter, daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self.stop_event.wait()
        finally:
            self._hang_up()
            if sys.stdout != sys.__stdout__:
                util.debug("resetting stdout, stderr")
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            sys.exit(0)

    def _hang_up(self):
        """Ends the threads that wait for clients: the interpreter must not end under them."""
        lines = dict(self._lines)
        waiting = [thread for line, thread in lines.items() if line.waits]
        for line in lines:
            line.hang_up()
        for thread in waiting:
            thread.join(_LAST_S)

    def accepter(self):
        """Takes connections, each to a thread of its own."""
        while not self.stop_event.is_set():
            try:
                connection = self.listener.accept()
            except OSError as error:
                util.info("no connection taken: %s", error)
                self.stop_event.wait(_RETRY_S)
                continue
            threading.Thread(target=self.handle_request, args=(connection,), daemon=True).start()

    def handle_request(self, conn):
        """Lets a client in, and does the one thing it asks for; that may be to serve it."""
        try:
            self._client.pid = self._pid_of(conn)
            self._handle_request(conn)
        finally:
            conn.close()

    def _pid_of(self, conn):
        """The process at the other end, if it is of this machine."""
        if not self._unix:
            return None
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=conn.fileno())
        try:
            found = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        finally:
            end.detach()
        return struct.unpack("3i", found)[0] or None  # 0: of a namespace that is not seen from here

    def _handle_request(self, conn):
        request = None
        try:
            _listener.deliver_challenge(conn, self.authkey)
            _listener.answer_challenge(conn, self.authkey)
            request = conn.recv()
            _, name, args, kwds = request
            message = "#RETURN", self._own(name)(conn, *args, **kwds)
        except Exception:
            message = "#TRACEBACK", format_exc()
        self._send(conn, message, request)

    def _send(self, conn, message, request):
        """Answers; `False`: the client cannot be told, and need not be served on."""
        try:
            try:
                conn.send(message)
            except (EOFError, ConnectionError):
                raise
            except Exception:
                conn.send(("#UNSERIALIZABLE", format_exc()))
        except Exception as error:
            util.info("no answer for %r: %r", request, error)
            return False
        return True

    def _own(self, name):
        """A method of the server itself that clients may call."""
        if name not in self.public:
            raise AttributeError(f"{name!r} is nothing that a server of a manager does")
        return getattr(self, name)

    def serve_client(self, conn):
        """Serves a client through its connection or line until it hangs up."""
        util.debug("starting server thread to service %r", threading.current_thread().name)
        while not self.stop_event.is_set():
            request = None
            try:
                request = _wire.receive(conn)
            except (EOFError, ConnectionError):
                util.debug("%r has hung up", threading.current_thread().name)
                return
            except Exception:
                message = "#TRACEBACK", format_exc()
            else:
                message = self._answer(conn, request)
            if not self._send(conn, message, request):
                return

    def _answer(self, conn, request):
        """Does what a request asks for: kind of the answer, and what to say."""
        try:
            ident, name, args, kwds = request
            if ident is None and name not in _ALONE:
                return "#RETURN", self._own(name)(conn, *args, **kwds)
            obj, exposed, types = self.id_to_obj.get(ident) or self.id_to_local_proxy_obj[ident]
            if name in exposed:
                method = getattr(obj, name)
            elif name in self.fallback_mapping:
                fallback = self.fallback_mapping[name]
                return "#RETURN", fallback(self, conn, ident, obj, *args, **kwds)
            else:
                raise AttributeError(
                    f"method {name!r} of {type(obj)!r} object is not in exposed={exposed!r}"
                )
        except Exception:
            return "#TRACEBACK", format_exc()
        return self._call(conn, method, args, kwds, types and types.get(name))

    def _call(self, conn, method, args, kwds, typeid):
        try:
            result = method(*args, **kwds)
        except Exception as error:
            return "#ERROR", error
        if not typeid:
            return "#RETURN", result
        try:
            ident, exposed = self.create(conn, typeid, result)
        except Exception:
            return "#TRACEBACK", format_exc()
        return "#PROXY", (exposed, _standard.Token(typeid, self.address, ident))

    # -- what clients ask of the server itself ---------------------------------------------

    def accept_connection(self, c, name):
        """Serves a client of the standard wire."""
        threading.current_thread().name = name
        c.send(("#RETURN", None))
        with _wire.standard_peer():
            self.serve_client(c)

    def accept_line(self, c, name, wanted=True):
        """Serves a client of this package: through a line if it wants one and there can be one."""
        thread = threading.current_thread()
        thread.name = name
        wanted = wanted and self._has_lines
        c.send(("#RETURN", (os.getpid(), wanted)))
        if not wanted:
            self.serve_client(c)
            return
        with self.mutex:
            self._places = self._places or _core.LinePlaces()
        line = _core.Line.offer(os.dup(c.fileno()), self._places)
        c.close()
        self._lines[line] = thread
        try:
            self.serve_client(line)
        finally:
            del self._lines[line]
            if not self.stop_event.is_set() and line.went_with_process(_LAST_S):
                self._forget(self._client.pid)
            line.close()

    # -- references ------------------------------------------------------------------------
    #
    # The standard protocol counts them for each object. Beside that they are counted for each
    # process that has told of them, so that they can be taken back when it was killed: by the
    # kernel's word for who is at the other end, so nobody can be blamed for another's.

    def incref(self, c, ident):
        """A client has one reference more."""
        super().incref(c, ident)
        pid = getattr(self._client, "pid", None)
        if pid is not None:
            with self._books:
                self._held[pid][ident] += 1

    def decref(self, c, ident):
        """A client has one reference less; the object goes with the last."""
        pid = getattr(self._client, "pid", None)
        if pid is not None:
            with self._books:
                self._drop(pid, ident)
        super().decref(c, ident)

    def _drop(self, pid, ident):
        held = self._held.get(pid)
        if held is not None and held[ident] > 0:
            held[ident] -= 1
            if not held[ident]:
                del held[ident]
        if not held:
            self._held.pop(pid, None)

    def _forget(self, pid):
        """Takes back what a process held that has ended: nothing, unless it was killed."""
        with self._books:
            held = self._held.pop(pid, {})
        for ident, count in held.items():
            util.debug("process %s ended with %d references to %s", pid, count, ident)
            for _ in range(count):
                super().decref(None, ident)

    def keep(self, proxy, ident):
        """An object of this server has a proxy for another one: that stays while the proxy does."""
        with self._local:
            key = object()
            self._local_proxies.setdefault(ident, set()).add(key)
            if ident not in self.id_to_local_proxy_obj:
                self.id_to_local_proxy_obj[ident] = self.id_to_obj[ident]
        weakref.finalize(proxy, self._let_go, ident, key).atexit = False

    def _let_go(self, ident, key):
        with self._local:  # maybe in the midst of `keep`, by the collector: this thread may enter
            keys = self._local_proxies[ident]
            keys.discard(key)
            if not keys:
                del self._local_proxies[ident]
                self.id_to_local_proxy_obj.pop(ident, None)

    def create(self, c, typeid, /, *args, **kwds):
        """Makes an object; its identity and what is exposed of it."""
        make, exposed, method_to_typeid, _ = self.registry[typeid]
        # without the mutex: what is made may itself be a client of this server
        if make is not None:
            obj = make(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError("Without callable, must have one non-keyword argument")
        else:
            obj = args[0]
        if exposed is None:
            exposed = _standard.public_methods(obj)
        if method_to_typeid is not None:
            if not isinstance(method_to_typeid, dict):
                raise TypeError(
                    f"Method_to_typeid {method_to_typeid!r}: type {type(method_to_typeid)!s}, "
                    "not dict"
                )
            exposed = [*exposed, *method_to_typeid]
        ident = f"{id(obj):x}"
        with self.mutex:
            self.id_to_obj[ident] = (obj, set(exposed), method_to_typeid)
            self.id_to_refcount.setdefault(ident, 0)
        self.incref(c, ident)
        return ident, tuple(exposed)


class SharedMemoryServer(Server):
    """A server that also knows which blocks of shared memory are to go with it."""

    public = (*Server.public, "track_segment", "release_segment", "list_segments")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        address = os.fsdecode(self.address) if isinstance(self.address, bytes) else self.address
        self.shared_memory_context = _Segments(f"shm_{address}_{os.getpid()}")

    def create(self, c, typeid, /, *args, **kwargs):
        """As `Server.create`; what says that it wants them is given the segments."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c):
        """Destroys all segments, and ends the server."""
        self.shared_memory_context.unlink()
        super().shutdown(c)

    def track_segment(self, c, segment_name):
        """From now on this segment goes with the server."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c, segment_name):
        """Destroys a segment."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c):
        """The names of all segments."""
        return self.shared_memory_context.segment_names


class _Segments:
    """Names of blocks of shared memory that go together."""

    def __init__(self, name):
        self.shared_memory_context_name = name
        self.segment_names = []

    def register_segment(self, segment_name):
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name):
        from oxgang.multiprocessing.shared_memory import SharedMemory

        self.segment_names.remove(segment_name)
        segment = SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self):
        for name in list(self.segment_names):
            self.destroy_segment(name)
