"""This file is about replaying a trace: its send times, squeezed or stretched."""

from collections.abc import Iterator
from dataclasses import dataclass

from epidote_loadgen.records import Slot
from epidote_loadgen.traces.trace_window import Trace


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A schedule with one slot a row: row number `item` is sent at its time over `speed`.

    `speed` 60 sends an hour in a minute. The window's start is the run's start.
    """

    trace: Trace
    class_name: str
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.speed < float("inf"):
            raise ValueError(f"speed: must be > 0, got {self.speed}")

    def expected_by_class(self) -> dict[str, float]:
        """Its rows."""
        return {self.class_name: float(len(self.trace.rows))}

    def peak_rps(self) -> float:
        """Of the busiest second of the run."""
        times_s = [row.at_s / self.speed for row in self.trace.rows]
        most = first = 0
        for i, at_s in enumerate(times_s):
            while times_s[first] <= at_s - 1.0:
                first += 1
            most = max(most, i + 1 - first)
        return float(most)

    def slots(self) -> Iterator[Slot]:
        for item, row in enumerate(self.trace.rows):
            at_s = (row.at_s - self.trace.start_s) / self.speed
            yield Slot(index=item, intended_send_s=at_s, class_name=self.class_name, item=item)
