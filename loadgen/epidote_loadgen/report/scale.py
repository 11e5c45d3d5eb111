"""This file is about axes: from values to pixels, and where the round numbers lie."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values [low, high] on pixels [start, end]; logarithmic ones want low > 0."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel; values outside are put on the edge."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside, about `most` of them."""
        if not self.is_log:
            return ticks(self.low, self.high, most)
        found = log_ticks(self.low, self.high)
        if len(found) < 2:  # less than an octave: nearly linear
            return ticks(self.low, self.high, 3)
        return found[:: -(-len(found) // (2 * most))]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """
    >>> ticks(0.0, 47.0)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    step = round_up((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade; only 1 where there are many.

    >>> log_ticks(0.08, 1.2)
    [0.1, 0.2, 0.5, 1.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    mantissas: Sequence[float] = (1.0, 2.0, 5.0) if last - first <= 3 else (1.0,)
    found = [round(m * 10.0**e, 12) for e in range(first, last + 1) for m in mantissas]
    return [value for value in found if low <= value <= high]


def round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    >>> round_up(0.13), round_up(7.0)
    (0.2, 10.0)
    """
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(s * power, 12) for s in STEPS if s * power >= value * (1 - 1e-9))


def seconds(value_s: float) -> str:
    """
    >>> seconds(0.0005), seconds(0.25), seconds(3.0), seconds(90.0)
    ('0.5 ms', '250 ms', '3 s', '1.5 min')
    """
    if value_s < 1.0:
        return f"{1000 * value_s:.3g} ms"
    return f"{value_s:.3g} s" if value_s < 60.0 else f"{value_s / 60:.3g} min"


def clock(value_s: float) -> str:
    """
    >>> clock(5.0), clock(90.0), clock(7260.0)
    ('5 s', '1:30', '2:01 h')
    """
    if value_s < 60.0:
        return f"{value_s:.3g} s"
    minutes, rest = divmod(round(value_s), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def plain(value: float) -> str:
    return f"{value:.4g}"


def percent(value: float) -> str:
    """
    >>> percent(0.9), percent(0.9987)
    ('90 %', '99.87 %')
    """
    return f"{100 * value:.4g} %"


Label = Callable[[float], str]
