"""Connections, sockets and files handed to another process."""

import multiprocessing
import os
import socket
import tempfile
from multiprocessing import reduction


def use_connection(inbox):
    inner = inbox.recv()
    inner.send("through the inner one")
    inner.close()


def use_socket(inbox):
    with inbox.recv() as connection:
        connection.sendall(b"through the socket")


def use_file(inbox):
    fd = reduction.recv_handle(inbox)
    os.write(fd, b"through the file")
    os.close(fd)


def with_process(target, send):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(there,))
    process.start()
    there.close()
    send(here, process)
    process.join()
    here.close()
    return process.exitcode


def main():
    receiving, sending = multiprocessing.Pipe(duplex=False)
    print(with_process(use_connection, lambda here, _process: here.send(sending)))
    sending.close()
    print(receiving.recv())
    mine, theirs = socket.socketpair()
    print(with_process(use_socket, lambda here, _process: here.send(theirs)))
    theirs.close()
    print(mine.recv(100))
    mine.close()
    with tempfile.TemporaryFile() as file:

        def send(here, process):
            reduction.send_handle(here, file.fileno(), process.pid)

        print(with_process(use_file, send))
        file.seek(0)
        print(file.read())


if __name__ == "__main__":
    main()
