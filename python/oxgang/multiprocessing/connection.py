"""`multiprocessing.connection`: listeners and clients are ours, the rest is the standard
library's."""

from multiprocessing.connection import (
    BUFSIZE,
    CONNECTION_TIMEOUT,
    Connection,
    ConnectionWrapper,
    Pipe,
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
