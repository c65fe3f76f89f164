"""Listeners and clients: the standard wire and handshake, with whoever knocks.

Who is on the other side is a stranger until the handshake is over, so the handshake is bounded: in
time (`HANDSHAKE_S` for each half of it, however the bytes trickle in) and in size. After it,
messages are the standard library's `Connection`'s, so that a peer without oxgang is served.

The handshake, for each side that has an authkey: one sends ``#CHALLENGE#`` and random bytes, the
other answers with their HMAC under the key, the first says ``#WELCOME#`` or ``#FAILURE#``; then the
same the other way round. There are two dialects:

| | challenge | answer |
|---|---|---|
| up to Python 3.11 | 20 random bytes | HMAC-MD5, bare |
| from Python 3.12, and ours | ``{digest}`` and 40 random bytes | ``{digest}`` and the HMAC by it |

Who gets a challenge without ``{digest}`` answers in the old dialect; who sent one with it takes an
old answer too (over all of the message). Nobody can make two new peers talk the old dialect: the
HMAC covers the name of the digest.
"""

import hmac
import os
import time
from multiprocessing import connection as _standard
from multiprocessing.connection import (
    SocketClient,
    SocketListener,
    address_type,
    arbitrary_address,
    wait,
)
from multiprocessing.context import AuthenticationError

__all__ = [
    "Client",
    "Listener",
    "SocketClient",
    "SocketListener",
    "XmlClient",
    "XmlListener",
    "address_type",
    "answer_challenge",
    "arbitrary_address",
    "deliver_challenge",
]

HANDSHAKE_S = 30.0
MESSAGE_LENGTH = 40
_OLD_CHALLENGE = 20
_OLD_ANSWER = 16
_LONGEST = 256

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
_DIGESTS = (b"md5", b"sha256", b"sha384", b"sha3_256", b"sha3_384")


# -- bounded messages --------------------------------------------------------------------------


def _receive(peer, deadline):
    """The next message of a handshake, whole, before the deadline."""
    peer = getattr(peer, "_conn", peer)  # of one that speaks XML: the handshake is not in XML
    if not isinstance(peer, _standard.Connection):
        return peer.recv_bytes(_LONGEST)  # something that only looks like one: its own business
    size = int.from_bytes(_exactly(peer, 4, deadline), "big", signed=True)
    if not 0 <= size <= _LONGEST:
        peer.close()
        raise OSError("bad message length")
    return _exactly(peer, size, deadline)


def _exactly(peer, count, deadline):
    parts = bytearray()
    while len(parts) < count:
        left = deadline - time.monotonic()
        if left <= 0 or not wait([peer], left):
            peer.close()
            raise AuthenticationError(
                f"the other side has not done its part of the handshake within {HANDSHAKE_S:g} s; "
                "it may not know that an authkey is asked for"
            )
        piece = os.read(peer.fileno(), count - len(parts))
        if not piece:
            raise EOFError("the other side hung up during the handshake")
        parts += piece
    return bytes(parts)


# -- the handshake -----------------------------------------------------------------------------


def _digest_of(message):
    """The digest that a challenge or an answer names; None: it is in the old dialect."""
    if len(message) in (_OLD_CHALLENGE, _OLD_ANSWER):
        return None
    name, brace, _ = message[1:].partition(b"}")
    if message[:1] == b"{" and brace and name in _DIGESTS:
        return name
    raise AuthenticationError(
        "the other side speaks no handshake that is known here: its message names none of the "
        f"digests {', '.join(digest.decode() for digest in _DIGESTS)}"
    )


def _check_key(authkey):
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")


def deliver_challenge(connection, authkey, digest_name="sha256"):
    """Makes the other side prove that it has the authkey; as the standard function, within
    `HANDSHAKE_S` seconds.

    Raises:
        AuthenticationError: it has another one, or said nothing in time.
        EOFError, OSError: it hung up, or speaks another protocol.
    """
    _check_key(authkey)
    deadline = time.monotonic() + HANDSHAKE_S
    message = b"{%b}%b" % (digest_name.encode("ascii"), os.urandom(MESSAGE_LENGTH))
    connection.send_bytes(_CHALLENGE + message)
    answer = _receive(connection, deadline)
    try:
        _check_answer(authkey, message, answer)
    except AuthenticationError:
        connection.send_bytes(_FAILURE)
        raise
    connection.send_bytes(_WELCOME)


def _check_answer(authkey, message, answer):
    digest = _digest_of(answer)
    if digest is None:
        digest, proof = b"md5", answer
    else:
        proof = answer[len(digest) + 2 :]
    try:
        expected = hmac.digest(authkey, message, digest.decode())
    except ValueError:
        raise AuthenticationError(f"the digest {digest.decode()} is not available here") from None
    if not hmac.compare_digest(expected, proof):
        raise AuthenticationError("digest received was wrong: the other side has another authkey")


def answer_challenge(connection, authkey):
    """Proves to the other side that this one has the authkey; as the standard function, within
    `HANDSHAKE_S` seconds.

    Raises:
        AuthenticationError: the other side has another one, asked for nothing, or said nothing
            in time.
        EOFError, OSError: it hung up, or speaks another protocol.
    """
    _check_key(authkey)
    deadline = time.monotonic() + HANDSHAKE_S
    message = _receive(connection, deadline)
    if not message.startswith(_CHALLENGE):
        raise AuthenticationError(f"Protocol error, expected challenge: {message=}")
    message = message[len(_CHALLENGE) :]
    if len(message) < _OLD_CHALLENGE:
        raise AuthenticationError(f"challenge too short: {len(message)} bytes")
    connection.send_bytes(_answer(authkey, message))
    if _receive(connection, deadline) != _WELCOME:
        raise AuthenticationError("digest sent was rejected: the other side has another authkey")


def _answer(authkey, message):
    digest = _digest_of(message)
    if digest is None:
        try:
            return hmac.digest(authkey, message, "md5")
        except ValueError:
            digest = b"sha256"  # no MD5 here (FIPS): a new peer can be told what it is instead
    return b"{%b}%b" % (digest, hmac.digest(authkey, message, digest.decode()))


# -- listeners and clients ---------------------------------------------------------------------


class Listener(_standard.Listener):
    """A bound socket that listens for connections; as `multiprocessing.connection.Listener`.

    A peer that says nothing, or has another authkey, costs one `accept`, which raises
    `AuthenticationError` after `HANDSHAKE_S` seconds at most; the listener goes on.
    """

    def accept(self):
        """The next connection, authenticated if there is an authkey.

        Raises:
            OSError: the listener is closed.
            AuthenticationError, EOFError: this peer has not come through the handshake.
        """
        listener = self._listener
        if listener is None:
            raise OSError("listener is closed")
        connection = listener.accept()
        if self._authkey is not None:
            _shake_hands(connection, self._authkey, deliver_challenge, answer_challenge)
        return connection


def Client(address, family=None, authkey=None):
    """A connection to the `Listener` at an address; as `multiprocessing.connection.Client`.

    Raises:
        OSError: nobody listens there.
        AuthenticationError: the other side has another authkey, or said nothing in time.
    """
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")
    connection = _standard.Client(address, family)
    if authkey is not None:
        _shake_hands(connection, authkey, answer_challenge, deliver_challenge)
    return connection


def _shake_hands(connection, authkey, *halves):
    try:
        for half in halves:
            half(connection, authkey)
    except BaseException:
        connection.close()
        raise


# -- the XML-RPC dialect of managers -----------------------------------------------------------


def _xml_dumps(obj):
    import xmlrpc.client

    return xmlrpc.client.dumps((obj,), None, None, None, True).encode()


def _xml_loads(data):
    import xmlrpc.client

    (obj,), _ = xmlrpc.client.loads(data.decode())
    return obj


def _speaking_xml(connection):
    return _standard.ConnectionWrapper(connection, _xml_dumps, _xml_loads)


class XmlListener(Listener):
    """A listener whose connections send XML-RPC instead of pickles."""

    def accept(self):
        """As `Listener.accept`."""
        return _speaking_xml(super().accept())


def XmlClient(*args, **kwargs):
    """A client whose connection sends XML-RPC instead of pickles."""
    return _speaking_xml(Client(*args, **kwargs))
