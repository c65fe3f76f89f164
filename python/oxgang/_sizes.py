"""Sizes of memory as people write them."""

from math import isfinite
from operator import index

UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", 1):
    UNITS[f"{_letter}b"] = 1000**_power
    UNITS[f"{_letter}ib"] = UNITS[_letter] = 1024**_power


def parse(size, what="memory_limit"):
    """Bytes: an int, or a text such as "512MiB", "1.5 GB" or "2g" (which is 2 GiB).

    Raises ValueError or TypeError with a text that says what to write.
    """
    if not isinstance(size, str):
        try:
            count = index(size)
        except TypeError:
            raise TypeError(
                f'{what} must be a number of bytes or a text such as "2GiB", not '
                f"{type(size).__name__}"
            ) from None
    else:
        text = size.strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = text[len(number) :].strip()
        try:
            exact = float(number)
        except ValueError:
            exact = float("nan")
        if unit not in UNITS or not isfinite(exact):
            raise ValueError(f'{what} {size!r} is no size; write it as "512MiB" or "2GB"')
        count = int(exact * UNITS[unit])
    if not 0 < count < 1 << 63:
        raise ValueError(f"{what} must be more than 0 bytes, and possible, not {size!r}")
    return count


def readable(count):
    """A number of bytes, short."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
