"""This file is about request rates that change with time, and their integrals.

Every profile is piecewise linear, so the expected number of requests until a time is known exactly
and so is the time at which it reaches a number. That turns any unit-rate process into one of this
rate (the time change theorem for point processes; Daley and Vere-Jones, 2003, 7.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epidote_loadgen.bounds import MOST_RPS

Floats = NDArray[np.float64]
DIURNAL_POINTS = 288  # a period; the chord of a sine is then off by under 1e-4 of its amplitude


@dataclass(frozen=True)
class Rate:
    """Requests per second, linear between `points` (time s, rps) and constant after the last.

    Two points of one time are a step; the later one counts from then on.

    >>> Rate(((0.0, 10.0),)).expected(2.0)
    20.0
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.points or self.points[0][0] != 0.0:
            raise ValueError("a rate needs points (time s, requests/s), the first at time 0")
        last_s = 0.0
        for at_s, rps in self.points:
            if not (math.isfinite(at_s) and at_s >= last_s):
                raise ValueError(f"a rate's times must be finite and ascend, got {at_s:g} s")
            if not 0.0 <= rps <= MOST_RPS:
                raise ValueError(
                    f"a rate must be from 0 to {MOST_RPS:g} requests/s, got {rps:g} at {at_s:g} s"
                )
            last_s = at_s

    def rps(self, at_s: float) -> float:
        """The rate at a time; 0 before the start."""
        if at_s < 0.0:
            return 0.0
        last_s, last_rps = self.points[0]
        for next_s, next_rps in self.points[1:]:
            if at_s < next_s:
                return last_rps + (next_rps - last_rps) * (at_s - last_s) / (next_s - last_s)
            last_s, last_rps = next_s, next_rps
        return last_rps

    def peak_rps(self, until_s: float) -> float:
        """The highest rate in [0, until_s].

        >>> ramp(0.0, 100.0, over_s=10.0).peak_rps(5.0)
        50.0
        """
        return max(self.rps(until_s), *(rps for at_s, rps in self.points if at_s <= until_s))

    def expected(self, until_s: float) -> float:
        """The expected number of requests in [0, until_s)."""
        times, rates, slopes, totals = self._segments()
        i = int(np.searchsorted(times, until_s, side="right")) - 1
        x = until_s - times[i]
        return float(totals[i] + rates[i] * x + slopes[i] * x * x / 2.0)

    def times_of(self, counts: Floats) -> Floats:
        """When the expected number reaches each of `counts` (ascending); inf where it never does.

        Solves a quadratic within the segment, in the form that does not cancel.
        """
        times, rates, slopes, totals = self._segments()
        i = np.maximum(np.searchsorted(totals, counts, side="left") - 1, 0)
        missing = counts - totals[i]
        root = np.sqrt(np.maximum(rates[i] ** 2 + 2.0 * slopes[i] * missing, 0.0))
        divisor = rates[i] + root
        with np.errstate(divide="ignore", invalid="ignore"):
            into = np.where(missing > 0.0, 2.0 * missing / divisor, 0.0)
        return times[i] + into

    def _segments(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Start, rate, slope and requests before, of each segment; the last one never ends."""
        times = np.array([at_s for at_s, _ in self.points])
        rates = np.array([rps for _, rps in self.points])
        widths = np.diff(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.where(widths > 0.0, np.diff(rates) / widths, 0.0)
        areas = widths * (rates[:-1] + rates[1:]) / 2.0
        return times, rates, np.append(slopes, 0.0), np.append(0.0, np.cumsum(areas))


def constant(rps: float) -> Rate:
    return Rate(((0.0, rps),))


def ramp(from_rps: float, to_rps: float, *, over_s: float) -> Rate:
    """Linear for `over_s`, then steady."""
    if over_s <= 0.0:
        raise ValueError(f"a ramp takes > 0 s, got {over_s:g}")
    return Rate(((0.0, from_rps), (over_s, to_rps)))


def steps(levels: Sequence[tuple[float, float]]) -> Rate:
    """(from time s, rps) each; the first at 0.

    >>> steps([(0.0, 5.0), (10.0, 20.0)]).rps(9.0)
    5.0
    """
    points: list[tuple[float, float]] = []
    for at_s, rps in levels:
        if points:
            points.append((at_s, points[-1][1]))
        points.append((at_s, rps))
    return Rate(tuple(points))


def diurnal(
    mean_rps: float, *, peak_ratio: float, period_s: float = 86_400.0, num_periods: int = 1
) -> Rate:
    """A day as a sine around its mean: lowest at the start, `peak_ratio` x mean at half time."""
    if not 1.0 <= peak_ratio <= 2.0:
        raise ValueError(f"peak_ratio: must lie in [1, 2], else the night is < 0; got {peak_ratio}")
    if period_s <= 0.0 or num_periods < 1:
        raise ValueError("a diurnal rate needs a period > 0 s and at least one of them")
    count = DIURNAL_POINTS * num_periods
    swing = mean_rps * (peak_ratio - 1.0)
    return Rate(
        tuple(
            (
                i * period_s / DIURNAL_POINTS,
                mean_rps - swing * math.cos(2.0 * math.pi * i / DIURNAL_POINTS),
            )
            for i in range(count + 1)
        )
    )
