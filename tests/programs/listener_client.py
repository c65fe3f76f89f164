"""Listener and Client, with and without a key, over each family."""

import multiprocessing
import os
import tempfile
import threading
from multiprocessing.connection import Client, Listener

with tempfile.TemporaryDirectory() as folder:
    for address in (("127.0.0.1", 0), os.path.join(folder, "socket"), None):
        with Listener(address, authkey=b"key") as listener:

            def visit(at=listener.address):
                with Client(at, authkey=b"key") as connection:
                    connection.send({"from": "client"})
                    connection.send_bytes(connection.recv_bytes()[::-1])

            thread = threading.Thread(target=visit)
            thread.start()
            with listener.accept() as connection:
                print(connection.recv(), listener.last_accepted is not None)
                connection.send_bytes(b"abc")
                print(connection.recv_bytes())
            thread.join()

with Listener(("localhost", 0), backlog=2, authkey=b"right") as listener:
    outcome = []

    address = listener.address

    def guess():
        try:
            Client(address, authkey=b"wrong")
        except multiprocessing.AuthenticationError as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=guess)
    thread.start()
    try:
        listener.accept()
    except multiprocessing.AuthenticationError as error:
        print(type(error).__name__)
    thread.join()
    print(outcome)
try:
    Client(address)
except OSError as error:
    print(type(error).__name__)
