"""Classes of the script itself, there and back, by every start method."""

import collections
import dataclasses
import enum
import multiprocessing

Pair = collections.namedtuple("Pair", "left right")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(order=True)
class Ox:
    name: str
    colour: Colour = Colour.RED
    tags: list = dataclasses.field(default_factory=list)


class TooHeavy(Exception):
    def __init__(self, ox, limit):
        super().__init__(ox, limit)
        self.ox = ox


def turned(pair):
    return Pair(pair.right, pair.left)


def painted(ox):
    return dataclasses.replace(ox, colour=Colour.BLUE, tags=[*ox.tags, type(ox).__name__])


def refuse(ox):
    raise TooHeavy(ox, 10)


def main():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.apply(turned, (Pair(1, "b"),)))
            ox = pool.apply(painted, (Ox("Bert"),))
            print(ox == Ox("Bert", Colour.BLUE, ["Ox"]), ox.colour is Colour.BLUE, type(ox) is Ox)
            try:
                pool.apply(refuse, (ox,))
            except TooHeavy as error:
                print("TooHeavy", error.ox.name, error.args[1])


if __name__ == "__main__":
    main()
