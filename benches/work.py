"""What the workers run. A module of its own: importing it must cost them nothing."""

import os
import time
from dataclasses import dataclass


@dataclass
class Order:
    """A small argument."""

    number: int
    customer: str
    prices: tuple

    def total(self):
        return self.number + sum(self.prices)


def nothing(value):
    return value


def total(order):
    return order.total()


def year(date):
    return date.year


def is_prime(n):
    """Trial division by 6k±1; for a prime that is all of them up to the root."""
    if n % 2 == 0 or n % 3 == 0:
        return n in (2, 3)
    divisor = 5
    while divisor * divisor <= n:
        if n % divisor == 0 or n % (divisor + 2) == 0:
            return False
        divisor += 6
    return True


def burn(steps):
    """Plain work, in proportion to ``steps``."""
    value = steps
    for _ in range(steps):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


def spin():
    while True:
        pass


def stuck_in_c():
    return sum(range(10**15))


def nothing_and_pid(_value):
    return os.getpid()


def when_and_pid():
    return time.monotonic(), os.getpid()
