"""Map and reduce: words of many texts, by a pool."""

import collections
import functools
import multiprocessing
import operator
import string

TEXT = (
    "The ox ploughs the field and the field feeds the ox. An oxgang is what one ox can plough. "
    "Eight oxgangs make a ploughland; two oxen make a yoke."
)


def count(piece):
    table = str.maketrans("", "", string.punctuation)
    return collections.Counter(piece.lower().translate(table).split())


def main():
    pieces = [TEXT[start:] for start in range(0, 80, 4)]
    with multiprocessing.Pool(2) as pool:
        counts = pool.map(count, pieces)
        total = functools.reduce(operator.add, pool.imap_unordered(count, pieces, chunksize=4))
        again = sum(pool.starmap(operator.add, zip(counts[::2], counts[1::2])), total - total)
    print(total.most_common(4), again == total, sum(total.values()))


if __name__ == "__main__":
    main()
