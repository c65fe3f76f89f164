"""Values and arrays in shared memory, with locks and without."""

import ctypes
import multiprocessing
from multiprocessing import sharedctypes


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


def change(number, numbers, word, points, times):
    for _ in range(times):
        with number.get_lock():
            number.value += 1
    for index in range(len(numbers)):
        with numbers.get_lock():
            numbers[index] += index
    word.value = word.value.upper()
    for point in points:
        point.x, point.y = point.y, point.x


def main():
    number = multiprocessing.Value("i", 7)
    numbers = multiprocessing.Array("d", [1.5, 2.5, 3.5])
    word = multiprocessing.Array("c", b"ox plough", lock=multiprocessing.RLock())
    points = multiprocessing.Array(Point, [(1, 2), (3, 4)])
    process = multiprocessing.Process(target=change, args=(number, numbers, word, points, 100))
    process.start()
    process.join()
    print(number.value, numbers[:], word.value, [(point.x, point.y) for point in points])
    numbers[1:] = [0.0, 9.0]
    print(list(numbers), len(numbers))
    raw, many = multiprocessing.RawValue("b", 5), multiprocessing.RawArray("i", 4)
    many[2] = raw.value
    print(list(many), sharedctypes.copy(many)[:])
    plain = multiprocessing.Value("i", 3, lock=False)
    print(plain.value, type(plain).__name__)
    guarded = sharedctypes.synchronized(multiprocessing.RawValue(Point, 1, 2))
    with guarded.get_lock():
        print(guarded.get_obj().y, guarded.x)
    with number:
        print("as a context", number.value)


if __name__ == "__main__":
    main()
