"""This file is about a row of little bars: how a figure went, in one line of a terminal."""

from collections.abc import Iterable

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Iterable[float]) -> str:
    """One bar a value, from 0 up to the largest.

    >>> sparkline([0.0, 5.0, 10.0])
    '▁▄█'
    """
    points = list(values)
    most = max(points, default=0.0)
    if most <= 0.0:
        return BARS[0] * len(points)
    return "".join(BARS[min(7, max(0, int(value / most * 7.999)))] for value in points)
