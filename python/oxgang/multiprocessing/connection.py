"""`multiprocessing.connection`: pipes in shared memory, listeners and clients.

An end of a `Pipe` is a `Connection`. What is made from a descriptor, or comes from a `Listener`, is
the standard library's own `Connection`, which speaks the standard format. `wait` takes both.
"""

from multiprocessing.connection import (
    BUFSIZE,
    CONNECTION_TIMEOUT,
    Connection,
    ConnectionWrapper,
    default_family,
    families,
    wait,
)

from oxgang.multiprocessing._listener import (
    MESSAGE_LENGTH,
    Client,
    Listener,
    SocketClient,
    SocketListener,
    XmlClient,
    XmlListener,
    address_type,
    answer_challenge,
    arbitrary_address,
    deliver_challenge,
)
from oxgang.multiprocessing._pipes import Pipe

__all__ = [
    "BUFSIZE",
    "CONNECTION_TIMEOUT",
    "MESSAGE_LENGTH",
    "Client",
    "Connection",
    "ConnectionWrapper",
    "Listener",
    "Pipe",
    "SocketClient",
    "SocketListener",
    "XmlClient",
    "XmlListener",
    "address_type",
    "answer_challenge",
    "arbitrary_address",
    "default_family",
    "deliver_challenge",
    "families",
    "wait",
]
