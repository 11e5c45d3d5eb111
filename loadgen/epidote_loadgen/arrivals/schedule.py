"""This file is about open-loop schedules: streams of send times, named by class and merged."""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from epidote_loadgen.arrivals.rate import Rate
from epidote_loadgen.arrivals.spacing import Poisson, Spacing, send_times
from epidote_loadgen.records import Slot

FOREVER_S = 86_400.0  # of a stream whose rate has no end of its own


@dataclass(frozen=True, kw_only=True)
class ArrivalStream:
    """One arrival process whose requests belong to classes by chance, `weights` apart.

    Without `duration_s` or `num_requests` it never ends (a schedule refuses that).
    """

    weights: Mapping[str, float]
    rate: Rate
    spacing: Spacing = field(default_factory=Poisson)
    duration_s: float = math.inf
    num_requests: int | None = None
    start_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.weights or any(not weight >= 0.0 for weight in self.weights.values()):
            raise ValueError(f"a stream needs classes with weights >= 0, got {self.weights}")
        if not sum(self.weights.values()) > 0.0:
            raise ValueError("a stream's weights must not all be 0")
        if self.duration_s <= 0.0 or (self.num_requests is not None and self.num_requests < 1):
            raise ValueError("a stream must last > 0 s and have at least one request")

    def sends(self, seed: int) -> Iterator[tuple[float, str]]:
        """(time, class), in order of time."""
        names, weights = zip(*self.weights.items(), strict=True)
        cumulative = list(itertools.accumulate(weights))
        rng = Random(f"{seed}/classes")
        times = send_times(
            self.spacing,
            self.rate,
            seed=seed,
            duration_s=self.duration_s,
            num_requests=self.num_requests,
        )
        if len(names) == 1:
            return ((self.start_s + at_s, names[0]) for at_s in times)
        return (
            (self.start_s + at_s, rng.choices(names, cum_weights=cumulative)[0]) for at_s in times
        )


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Streams merged by time. A class may occur in several; its items are numbered through."""

    streams: tuple[ArrivalStream, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.streams:
            raise ValueError("an open loop needs at least one stream")
        if any(s.duration_s == math.inf and s.num_requests is None for s in self.streams):
            raise ValueError("every stream needs a duration or a number of requests")

    def expected_by_class(self) -> dict[str, float]:
        """How many requests of each class are to be expected; a stream without an end by time
        counts for a day, or up to its own number."""
        found: dict[str, float] = {}
        for stream in self.streams:
            expected = stream.rate.expected(min(stream.duration_s, FOREVER_S))
            if stream.num_requests is not None:
                expected = min(expected, stream.num_requests)
            total = sum(stream.weights.values())
            for name, weight in stream.weights.items():
                found[name] = found.get(name, 0.0) + expected * weight / total
        return found

    def peak_rps(self) -> float:
        """The highest rate; of streams that do not peak together, less than this."""
        return sum(stream.rate.peak_rps(stream.duration_s) for stream in self.streams)

    def slots(self) -> Iterator[Slot]:
        # Seeds of streams differ by a stride that no user's choice of neighbouring seeds meets.
        streams = [s.sends(self.seed + 1_000_003 * i) for i, s in enumerate(self.streams)]
        return number(heapq.merge(*streams))


def number(sends: Iterable[tuple[float, str]]) -> Iterator[Slot]:
    """Slots of (time, class) pairs that come in order of time."""
    items: Counter[str] = Counter()
    for index, (at_s, name) in enumerate(sends):
        yield Slot(index=index, intended_send_s=at_s, class_name=name, item=items[name])
        items[name] += 1
