"""Proxies: objects whose methods are called in the process of a manager.

They are subclasses of the standard library's, which have the public methods; how a call gets there
and back is ours. A proxy pickles as one of ours for peers of this package, and as the standard one
for others, so it can be put where a program on the plain standard library will read it.
"""

import threading
from multiprocessing import managers as _standard
from multiprocessing import process, util
from multiprocessing.context import get_spawning_popen

from oxgang.multiprocessing import _listener, _wire
from oxgang.multiprocessing._wire import dispatch

__all__ = [
    "AcquirerProxy",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseListProxy",
    "BasePoolProxy",
    "BaseProxy",
    "BaseSetProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "NamespaceProxy",
    "PoolProxy",
    "RebuildProxy",
    "SetProxy",
    "ValueProxy",
]

clients = {"pickle": _listener.Client, "xmlrpclib": _listener.XmlClient}


class BaseProxy(_standard.BaseProxy):
    """What all proxies are; as `multiprocessing.managers.BaseProxy`.

    Equality and hash are identity; ``str()`` shows the referent, ``repr()`` the proxy. A proxy may
    be used by any number of threads and processes.
    """

    _address_to_local = _wire.homes
    _standard_ = _standard.BaseProxy  # what a standard peer takes it for

    def __init__(  # noqa: PLR0917 the standard signature
        self,
        token,
        serializer,
        manager=None,
        authkey=None,
        exposed=None,
        incref=True,
        manager_owned=False,
    ):
        self._home = home = _wire.home_of(token.address)
        self._tls, self._idset = home
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = clients[serializer]
        self._owned_by_manager = manager_owned
        if authkey is None and manager is not None:
            authkey = manager._authkey
        self._authkey = home.authkey_or(authkey)
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _connect(self):
        return self._home.open(self._authkey, self._Client)

    def _call(self, ident, methodname, args, kwds):
        """Kind and value of the answer to a request, by one of this thread's ways."""
        ways = self._tls
        try:
            way = ways.idle.pop()
        except (AttributeError, IndexError):
            way = self._connect()
        try:
            answer = way.call(ident, methodname, args, kwds)
        except BaseException:
            _wire.put_back(ways, way)
            raise
        _wire.put_back(ways, way)
        return answer

    def _callmethod(self, methodname, args=(), kwds=_wire.NO_KWDS):
        """Calls a method of the referent; its result, or a proxy for it where the type says so.

        Raises:
            what the method raised. RemoteError: the referent has no such method, or its result
                cannot be pickled. ManagerDied: the manager's process has ended.
        """
        kind, result = self._call(self._id, methodname, args, kwds)
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_of(*result)
        try:
            return _wire.unwrap(kind, result)
        finally:
            del result  # or the traceback would hold the exception that holds it

    def _proxy_of(self, exposed, token):
        """A proxy for what a method made; the server counts a reference until this has its own."""
        registry = _default_registry if self._manager is None else self._manager._registry
        entry = registry.get(token.typeid)
        make = AutoProxy if entry is None else entry[-1]
        token.address = self._token.address
        proxy = make(
            token,
            self._serializer,
            manager=self._manager,
            authkey=self._authkey,
            exposed=exposed,
        )
        self._home.ask(self._authkey, self._Client, "decref", (token.id,))
        return proxy

    def _incref(self):
        if self._owned_by_manager:
            util.debug("owned_by_manager skipped INCREF of %r", self._token.id)
            return
        self._home.ask(self._authkey, self._Client, "incref", (self._id,))
        util.debug("INCREF %r", self._token.id)
        self._idset.add(self._id)
        self._close = util.Finalize(
            self,
            type(self)._decref,
            args=(
                self._token,
                self._authkey,
                self._manager and self._manager._state,
                self._tls,
                self._idset,
                self._Client,
            ),
            exitpriority=10,
        )

    @staticmethod
    def _decref(token, authkey, state, tls, idset, _Client):
        idset.discard(token.id)
        if state is None or state.value == _standard.State.STARTED:
            _wire.home_of(token.address).forget(authkey, _Client, token.id)
        if not idset:
            for way in tls.__dict__.pop("idle", ()):
                way.close()

    def _after_fork(self):
        self._manager = None
        try:
            self._incref()
        except Exception as error:
            util.info("incref failed: %s", error)  # the manager may have ended long ago

    def __reduce__(self):
        kwds = {}
        if get_spawning_popen() is not None:
            kwds["authkey"] = self._authkey
        isauto = getattr(self, "_isauto", False)
        if isauto:
            kwds["exposed"] = self._exposed_
        if self._home.is_standard or _wire.speaks_standard():
            cls = _standard.AutoProxy if isauto else self._standard_
            return _standard.RebuildProxy, (cls, self._token, self._serializer, kwds)
        cls = AutoProxy if isauto else type(self)
        return RebuildProxy, (cls, self._token, self._serializer, kwds)


def RebuildProxy(func, token, serializer, kwds):
    """Unpickles a proxy. In the process of its own manager it counts no reference, or it would keep
    its referent for ever: that stays while the proxy does."""
    server = getattr(process.current_process(), "_manager_server", None)
    at_home = server is not None and _wire.plain(server.address) == _wire.plain(token.address)
    if at_home:
        kwds["manager_owned"] = True
    inheriting = getattr(process.current_process(), "_inheriting", False)
    incref = kwds.pop("incref", True) and not inheriting
    proxy = func(token, serializer, incref=incref, **kwds)
    if at_home:
        server.keep(proxy, token.id)
    return proxy


# -- making types ------------------------------------------------------------------------------

_made = {}
_making = threading.Lock()


def _remote(name):
    def method(self, /, *args, **kwds):
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    return method


def MakeProxyType(name, exposed):
    """A type of proxies with these methods; the same one for the same arguments."""
    exposed = tuple(exposed)
    with _making:
        known = _made.get((name, exposed))
        if known is None:
            methods = {method: _remote(method) for method in exposed}
            known = type(name, (BaseProxy,), {**methods, "_exposed_": exposed})
            _made[name, exposed] = known
    return known


def AutoProxy(  # noqa: PLR0917 the standard signature
    token, serializer, manager=None, authkey=None, exposed=None, incref=True, manager_owned=False
):
    """A proxy with whatever public methods the referent has."""
    if authkey is None:
        authkey = process.current_process().authkey if manager is None else manager._authkey
    if exposed is None:
        connection = clients[serializer](token.address, authkey=authkey)
        try:
            exposed = dispatch(connection, None, "get_methods", (token,))
        finally:
            connection.close()
    proxy = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )
    proxy._isauto = True
    return proxy


# -- the types of SyncManager ------------------------------------------------------------------


class IteratorProxy(BaseProxy, _standard.IteratorProxy):
    """A proxy for an iterator or a generator."""

    _standard_ = _standard.IteratorProxy


class AcquirerProxy(BaseProxy, _standard.AcquirerProxy):
    """A proxy for a lock or a semaphore."""

    _standard_ = _standard.AcquirerProxy


class ConditionProxy(AcquirerProxy, _standard.ConditionProxy):
    """A proxy for a `threading.Condition`."""

    _standard_ = _standard.ConditionProxy


class EventProxy(BaseProxy, _standard.EventProxy):
    """A proxy for a `threading.Event`."""

    _standard_ = _standard.EventProxy


class BarrierProxy(BaseProxy, _standard.BarrierProxy):
    """A proxy for a `threading.Barrier`."""

    _standard_ = _standard.BarrierProxy


class NamespaceProxy(BaseProxy, _standard.NamespaceProxy):
    """A proxy whose public attributes are the referent's."""

    _standard_ = _standard.NamespaceProxy


class ValueProxy(BaseProxy, _standard.ValueProxy):
    """A proxy for an object with a ``value``."""

    _standard_ = _standard.ValueProxy


class _Items(BaseProxy):
    """What lists, dicts and arrays are asked most."""

    def __len__(self):
        return self._callmethod("__len__")

    def __getitem__(self, key):
        return self._callmethod("__getitem__", (key,))

    def __setitem__(self, key, value):
        self._callmethod("__setitem__", (key, value))


class ArrayProxy(_Items, _standard.ArrayProxy):
    """A proxy for an `array.array`."""

    _standard_ = _standard.ArrayProxy


class ListProxy(_Items, _standard.ListProxy):
    """A proxy for a list."""

    _standard_ = _standard.ListProxy
    _exposed_ = (*_standard.ListProxy._exposed_, "clear", "copy")

    def clear(self):
        """As `list.clear`."""
        self._callmethod("clear")

    def copy(self):
        """As `list.copy`: a list, not a proxy."""
        return self._callmethod("copy")


BaseListProxy = _standard.BaseListProxy


class DictProxy(_Items, _standard.DictProxy):
    """A proxy for a dict."""

    _standard_ = _standard.DictProxy
    _exposed_ = (
        *_standard.DictProxy._exposed_,
        "__ior__",
        "__or__",
        "__reversed__",
        "__ror__",
        "fromkeys",
    )
    _method_to_typeid_ = {"__iter__": "Iterator", "__reversed__": "Iterator"}  # noqa: RUF012

    def __contains__(self, key):
        return self._callmethod("__contains__", (key,))

    def get(self, key, default=None, /):
        """As `dict.get`."""
        return self._callmethod("get", (key, default))

    def __or__(self, other):
        return self._callmethod("__or__", (other,))

    def __ror__(self, other):
        return self._callmethod("__ror__", (other,))

    def __ior__(self, other):
        self._callmethod("update", (other,))
        return self

    def __reversed__(self):
        return self._callmethod("__reversed__")

    def fromkeys(self, iterable, value=None, /):
        """As `dict.fromkeys`: a dict, not a proxy."""
        return self._callmethod("fromkeys", (iterable, value))


BaseSetProxy = MakeProxyType(
    "BaseSetProxy",
    (
        *("__and__", "__contains__", "__iand__", "__ior__", "__isub__"),
        *("__iter__", "__ixor__", "__len__", "__or__", "__rand__", "__ror__", "__rsub__"),
        *("__rxor__", "__sub__", "__xor__", "__ge__", "__gt__", "__le__", "__lt__"),
        *("add", "clear", "copy", "difference", "difference_update", "discard"),
        *("intersection", "intersection_update", "isdisjoint", "issubset", "issuperset"),
        *("pop", "remove", "symmetric_difference", "symmetric_difference_update"),
        *("union", "update"),
    ),
)


class SetProxy(BaseSetProxy):
    """A proxy for a set, as Python 3.14 has it."""

    _standard_ = getattr(_standard, "SetProxy", _standard.AutoProxy)
    _method_to_typeid_ = {"__iter__": "Iterator"}  # noqa: RUF012

    def __ior__(self, value):
        self._callmethod("update", (value,))
        return self

    def __iand__(self, value):
        self._callmethod("intersection_update", (value,))
        return self

    def __ixor__(self, value):
        self._callmethod("symmetric_difference_update", (value,))
        return self

    def __isub__(self, value):
        self._callmethod("difference_update", (value,))
        return self


BasePoolProxy = _standard.BasePoolProxy


class PoolProxy(BaseProxy, _standard.PoolProxy):
    """A proxy for a `multiprocessing.Pool`."""

    _standard_ = _standard.PoolProxy


_default_registry = {}  # of SyncManager: for proxies that know no manager
