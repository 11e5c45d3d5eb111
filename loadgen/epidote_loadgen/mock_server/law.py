"""This file is about the mock server's latency law: what any request gets, computed, not measured.

Requests pass one first-come-first-served station of `capacity_rps` (M/D/1 under Poisson arrivals)
and then stream on their own. While the server stalls, nothing moves: all times are those of a
clock that stands still in a stall. The same law, fed with intended sends, is the truth that a load
generator's report is held against.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Stall:
    """From `at_s` on, for `duration_s`; on the server's clock, 0 at its first request."""

    at_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class LatencyLaw:
    """`jitter` is the standard deviation of a latency's logarithm; 0: always the same."""

    ttft_s: float = 0.05
    itl_s: float = 0.02
    image_s: float = 0.0  # more for every image
    jitter: float = 0.0
    capacity_rps: float = math.inf
    stalls: tuple[Stall, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.ttft_s, self.itl_s, self.image_s, self.jitter) < 0.0:
            raise ValueError(f"latencies and jitter must be >= 0, got {self}")
        if not self.capacity_rps > 0.0:
            raise ValueError(f"capacity: must be > 0 requests/s, got {self.capacity_rps}")
        ends = 0.0
        for stall in self.stalls:
            if stall.at_s < ends or stall.duration_s <= 0.0:
                raise ValueError("stalls must come in order, apart, and last > 0 s")
            ends = stall.at_s + stall.duration_s

    def moving(self, at_s: float) -> float:
        """The moving clock at a wall time: without the stalls before it."""
        stood = sum(
            min(max(0.0, at_s - stall.at_s), stall.duration_s)
            for stall in self.stalls
            if stall.at_s < at_s
        )
        return at_s - stood

    def wall(self, moving_s: float) -> float:
        """The wall time at which the moving clock gets there; the inverse of `moving`.

        >>> law = LatencyLaw(stalls=(Stall(10.0, 5.0),))
        >>> law.wall(law.moving(12.0) + 0.5)
        15.5
        """
        at_s = moving_s
        for stall in self.stalls:
            if at_s >= stall.at_s:
                at_s += stall.duration_s
        return at_s


class Station:
    """The law at work: give it arrivals in order of time, it says when what is sent."""

    def __init__(self, law: LatencyLaw) -> None:
        self._law = law
        self._free_s = 0.0  # of the moving clock

    def serve(
        self, arrival_s: float, *, key: str, num_tokens: int, num_images: int = 0
    ) -> list[float]:
        """Wall times of the request's tokens. `key` decides its jitter."""
        law = self._law
        start_s = max(self._free_s, law.moving(arrival_s))
        self._free_s = start_s + 1.0 / law.capacity_rps
        factor = 1.0
        if law.jitter > 0.0:
            # Mean 1, so that jitter does not change a rate.
            factor = math.exp(Random(f"{law.seed}/{key}").gauss(-(law.jitter**2) / 2, law.jitter))
        first_s = self._free_s + factor * (law.ttft_s + num_images * law.image_s)
        gap_s = factor * law.itl_s
        return [law.wall(first_s + i * gap_s) for i in range(num_tokens)]


def true_attainment(law: LatencyLaw, sends: Iterable[tuple[float, str]], *, ttft_s: float) -> float:
    """Share of requests with a first token in time, had each arrived at its intended send.

    `sends` are (time on the server's clock, key) in order of time. No requests: 1.0.
    """
    station = Station(law)
    met = [station.serve(at_s, key=key, num_tokens=1)[0] - at_s <= ttft_s for at_s, key in sends]
    return sum(met) / len(met) if met else 1.0
