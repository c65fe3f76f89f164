"""`Listener` and `Client`: the standard handshake in both dialects, with whoever is there."""

import hmac
import multiprocessing.connection as standard
import os
import socket
import threading
from multiprocessing import AuthenticationError

import oxgang.multiprocessing.connection as ours
import pytest
from oxgang.multiprocessing import _listener

KINDS = {"standard": standard, "oxgang": ours}


@pytest.fixture(params=KINDS)
def module(request):
    return KINDS[request.param]


@pytest.fixture(params=KINDS)
def other(request):
    return KINDS[request.param]


@pytest.fixture(params=["AF_UNIX", "AF_INET"])
def family(request):
    return request.param


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_listener, "HANDSHAKE_S", 0.2)


def in_thread(function, *args):
    """Calls it in a thread; gives what waits for its result, or raises its error."""
    outcome = []

    def run():
        try:
            outcome.append((function(*args), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return result


@pytest.mark.parametrize("authkey", [None, b"key", b"a long key" * 100])
def test_each_meets_each(module, other, family, authkey):
    with module.Listener(family=family, authkey=authkey) as listener:
        accepted = in_thread(listener.accept)
        with other.Client(listener.address, authkey=authkey) as there, accepted() as here:
            there.send({"a": [1, b"x" * 100_000]})
            assert here.recv() == {"a": [1, b"x" * 100_000]}
            here.send_bytes(b"back")
            assert there.recv_bytes() == b"back"
        assert family == "AF_UNIX" or listener.last_accepted[0] == "127.0.0.1"


def test_another_key(module, other, family):
    with module.Listener(family=family, authkey=b"key") as listener:
        accepted = in_thread(listener.accept)
        with pytest.raises(AuthenticationError, match="digest sent was rejected"):
            other.Client(listener.address, authkey=b"another")
        with pytest.raises(AuthenticationError, match="digest received was wrong"):
            accepted()
        accepted = in_thread(listener.accept)  # it goes on
        other.Client(listener.address, authkey=b"key").close()
        accepted().close()


def test_a_listener_that_has_another_key_is_found_out(module):
    """A client does not trust who cannot prove that it has the key, even if it lets it in."""
    with standard.Listener(family="AF_UNIX") as listener:

        def let_in():
            connection = listener.accept()
            connection.send_bytes(b"#CHALLENGE#" + b"{sha256}" + bytes(40))
            connection.recv_bytes()
            connection.send_bytes(b"#WELCOME#")
            connection.recv_bytes()
            connection.send_bytes(b"{sha256}" + bytes(32))
            connection.recv_bytes()
            connection.close()

        done = in_thread(let_in)
        with pytest.raises(AuthenticationError):
            module.Client(listener.address, authkey=b"key")
        done()


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\x30{sha"], ids=["nothing", "two", "some"])
def test_a_silent_client_is_not_waited_for(said, impatient, monkeypatch):
    with ours.Listener(family="AF_INET", authkey=b"key") as listener:
        with socket.create_connection(listener.address) as stranger:
            stranger.sendall(said)
            with pytest.raises(AuthenticationError, match="handshake within"):
                listener.accept()
        monkeypatch.undo()
        accepted = in_thread(listener.accept)  # it goes on
        ours.Client(listener.address, authkey=b"key").close()
        accepted().close()


def test_a_silent_listener_is_not_waited_for(impatient):
    with standard.Listener(family="AF_UNIX") as listener:  # without a key: it asks for nothing
        accepted = in_thread(listener.accept)
        with pytest.raises(AuthenticationError, match="handshake within"):
            ours.Client(listener.address, authkey=b"key")
        accepted().close()


def test_who_sends_too_much_or_hangs_up(module):
    with module.Listener(family="AF_INET", authkey=b"key") as listener:
        with socket.create_connection(listener.address) as stranger:
            stranger.sendall(b"\x7f\xff\xff\xff" + bytes(1000))
            with pytest.raises(OSError, match="bad message length"):
                listener.accept()
        accepted = in_thread(listener.accept)
        socket.create_connection(listener.address).close()
        with pytest.raises((EOFError, ConnectionError)):
            accepted()


class Peer:
    """The other end of a handshake, by hand."""

    def __init__(self, *said):
        self.said = list(said)
        self.heard = []

    def recv_bytes(self, _limit=None):
        said = self.said.pop(0)
        return said(self.heard[-1]) if callable(said) else said

    def send_bytes(self, data):
        self.heard.append(data)


def test_the_old_dialect_is_answered_in_it():
    challenge = os.urandom(20)
    peer = Peer(b"#CHALLENGE#" + challenge, b"#WELCOME#")
    ours.answer_challenge(peer, b"key")
    assert peer.heard == [hmac.digest(b"key", challenge, "md5")]


@pytest.mark.parametrize("digest", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_the_new_dialect_is_answered_in_it(digest):
    challenge = b"{%b}" % digest.encode() + os.urandom(40)
    peer = Peer(b"#CHALLENGE#" + challenge, b"#WELCOME#")
    ours.answer_challenge(peer, b"key")
    expected = hmac.digest(b"key", challenge, digest)
    assert peer.heard == [b"{%b}%b" % (digest.encode(), expected)]


def test_an_old_answer_is_taken():
    peer = Peer(lambda heard: hmac.digest(b"key", heard[len(b"#CHALLENGE#") :], "md5"))
    ours.deliver_challenge(peer, b"key")
    assert peer.heard[0].startswith(b"#CHALLENGE#{sha256}") and peer.heard[1] == b"#WELCOME#"


@pytest.mark.parametrize("answer", [b"", b"short", b"{sha256}" + bytes(32), b"{crc}" + bytes(40)])
def test_wrong_answers(answer):
    peer = Peer(answer)
    with pytest.raises(AuthenticationError):
        ours.deliver_challenge(peer, b"key")
    assert peer.heard[1:] == [b"#FAILURE#"]


@pytest.mark.parametrize("said", [b"something", b"#CHALLENGE#short", b"#CHALLENGE#{x}" + bytes(40)])
def test_wrong_challenges(said):
    with pytest.raises(AuthenticationError):
        ours.answer_challenge(Peer(said), b"key")


def test_keys_are_bytes(module):
    with pytest.raises((TypeError, ValueError), match=r"byte"):
        module.Listener(family="AF_UNIX", authkey="text")
    with pytest.raises(ValueError, match="must be bytes"):
        ours.answer_challenge(Peer(), "text")


def test_a_closed_listener(module):
    listener = module.Listener(family="AF_UNIX")
    address = listener.address
    listener.close()
    assert not os.path.exists(address)
    with pytest.raises(OSError, match="closed"):
        listener.accept()
    with pytest.raises(OSError):
        module.Client(address)


def test_xml_by_hand(module, other):
    with module.XmlListener(family="AF_INET", authkey=b"key") as listener:
        accepted = in_thread(listener.accept)
        there = other.XmlClient(listener.address, authkey=b"key")
        here = accepted()
        there.send([1, "two"])
        assert here.recv() == [1, "two"]
        here.close()
        there.close()
