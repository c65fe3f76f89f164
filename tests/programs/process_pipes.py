"""Pipes: objects and bytes, both ways, waited for, ended."""

import array
import multiprocessing
from multiprocessing.connection import wait


def answer(connection, other_end):
    other_end.close()  # or a fork would keep it open
    with connection:
        while True:
            try:
                request = connection.recv()
            except EOFError:
                return
            connection.send(request * 2)


def count(connection, upto):
    for number in range(upto):
        connection.send(number)
    connection.close()


def main():
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=answer, args=(there, here))
    process.start()
    there.close()
    for request in (21, "ox", [1, None]):
        here.send(request)
        print(here.recv())
    here.close()
    process.join()
    print(process.exitcode, here.closed)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    print(receiving.readable, receiving.writable, sending.readable, sending.writable)
    print(receiving.poll(), receiving.poll(0.01))
    sending.send_bytes(b"plough", 1, 3)
    print(receiving.poll(1), receiving.recv_bytes())
    sending.send_bytes(array.array("i", [1, 2, 3]))
    numbers = array.array("i", [0] * 5)
    print(receiving.recv_bytes_into(numbers), numbers.tolist())
    sending.send_bytes(b"too long for it")
    try:
        receiving.recv_bytes_into(bytearray(4))
    except multiprocessing.BufferTooShort as error:
        print("BufferTooShort", error.args)
    try:
        receiving.send(1)
    except OSError as error:
        print("OSError:", error)
    sending.close()
    try:
        receiving.recv()
    except EOFError:
        print("EOFError")
    readers, processes = [], []
    for upto in (2, 3):
        receiving, sending = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=count, args=(sending, upto))
        process.start()
        sending.close()
        readers.append(receiving)
        processes.append(process)
    got = []
    while readers:
        for reader in wait(readers, timeout=10):
            try:
                got.append(reader.recv())
            except EOFError:
                readers.remove(reader)
    print(sorted(got))
    print(len(wait([process.sentinel for process in processes], timeout=10)) >= 1)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
