"""Named shared memory, lists in it, its manager."""

import multiprocessing
from multiprocessing import shared_memory
from multiprocessing.managers import SharedMemoryManager


def write(name):
    block = shared_memory.SharedMemory(name=name)
    block.buf[:5] = b"there"
    block.close()


def total(items, place, sums):
    sums.put((place, sum(items)))


def main():
    block = shared_memory.SharedMemory(create=True, size=64)
    print(block.size >= 64, bytes(block.buf[:5]))
    process = multiprocessing.Process(target=write, args=(block.name,))
    process.start()
    process.join()
    print(bytes(block.buf[:5]))
    block.close()
    block.unlink()
    try:
        shared_memory.SharedMemory(name=block.name)
    except FileNotFoundError:
        print("unlinked")
    items = shared_memory.ShareableList(["ox", 1, 2.5, None, True, b"raw"])
    again = shared_memory.ShareableList(name=items.shm.name)
    again[1] = 10
    print(list(items), len(items), items.count(None), items.index("ox"), items.format)
    again.shm.close()
    items.shm.close()
    items.shm.unlink()
    with SharedMemoryManager() as manager:
        parts = [manager.ShareableList(range(n, n + 3)) for n in (0, 10)]
        sums = multiprocessing.SimpleQueue()
        for place, part in enumerate(parts):
            process = multiprocessing.Process(target=total, args=(part, place, sums))
            process.start()
            process.join()
        print(sorted(sums.get() for _ in parts), manager.SharedMemory(16).size >= 16)


if __name__ == "__main__":
    main()
