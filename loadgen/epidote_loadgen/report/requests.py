"""This file is about a document's requests as rows again, and in bins of time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from epidote_loadgen.report.scale import round_up

Row = dict[str, Any]
MOST_BINS, LEAST_BINS = 120, 12
REQUESTS_A_BIN = 20  # about; quantiles of fewer jump about


def rows(document: dict[str, Any]) -> list[Row]:
    """One dictionary a request, by `outputs.request_columns.COLUMNS`."""
    table = document["requests"]
    names = list(table)
    return [dict(zip(names, values, strict=True)) for values in zip(*table.values(), strict=True)]


def end_of(document: dict[str, Any], requests: Sequence[Row]) -> float:
    """The end of the time axis in seconds."""
    last = max((row["end_s"] or row["intended_send_s"] for row in requests), default=0.0)
    return max(1.0, float(document["run"]["duration_s"]), last)


@dataclass(frozen=True, kw_only=True)
class Bins:
    """[0, end) in equal bins; the last may reach over the end."""

    end_s: float
    width_s: float

    @classmethod
    def fitting(cls, end_s: float, num_requests: int) -> "Bins":
        """Bins of a round width, at most `MOST_BINS`, fewer where there are few requests."""
        wanted = min(MOST_BINS, max(LEAST_BINS, num_requests // REQUESTS_A_BIN))
        return cls(end_s=end_s, width_s=max(0.5, round_up(end_s / wanted)))

    @property
    def count(self) -> int:
        return max(1, math.ceil(self.end_s / self.width_s))

    def of(self, at_s: float) -> int:
        return min(self.count - 1, max(0, int(at_s / self.width_s)))

    def middle_s(self, number: int) -> float:
        return (number + 0.5) * self.width_s

    def groups(
        self, requests: Sequence[Row], at: Callable[[Row], float | None]
    ) -> Iterator[tuple[int, list[Row]]]:
        """(bin, its requests) for bins that have any; `at` None leaves a request out."""
        found: dict[int, list[Row]] = {}
        for row in requests:
            at_s = at(row)
            if at_s is not None:
                found.setdefault(self.of(at_s), []).append(row)
        yield from sorted(found.items())

    def rates(self, requests: Sequence[Row], at: Callable[[Row], float | None]) -> list[float]:
        """Requests a second in every bin."""
        counts = [0.0] * self.count
        for number, group in self.groups(requests, at):
            counts[number] = len(group) / self.width_s
        return counts
