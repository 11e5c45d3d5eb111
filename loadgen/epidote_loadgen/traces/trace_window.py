"""This file is about the part of a trace that a run replays: a window of its rows, in order."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from epidote_loadgen.traces.bad_rows import BadRows, TraceError
from epidote_loadgen.traces.reading import TraceFormat, read_rows
from epidote_loadgen.traces.trace_row import TraceRow

MAX_DISORDER_S = 60.0  # rows this late still find their place; beyond the window we stop reading


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Rows of [start_s, end_s) in the trace's own time, at most `max_rows`, ascending in time.

    Pickles as its description: every process reads the file itself.
    """

    path: Path
    trace_format: TraceFormat = TraceFormat.AUTO
    start_s: float = 0.0
    end_s: float | None = None
    max_rows: int | None = None
    max_bad_rows: int = 0

    @property
    def rows(self) -> tuple[TraceRow, ...]:
        """All rows of the window.

        Raises:
            TraceError: see `read_rows`; or the window is empty.
        """
        return self._read[0]

    @property
    def bad(self) -> BadRows:
        """What was skipped before the window's end."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[tuple[TraceRow, ...], BadRows]:
        bad = BadRows(path=self.path, allowed=self.max_bad_rows)
        found = read_rows(self.path, trace_format=self.trace_format, bad=bad)
        end_s = float("inf") if self.end_s is None else self.end_s
        rows = []
        for row in found:
            if row.at_s >= end_s + MAX_DISORDER_S:
                break
            if self.start_s <= row.at_s < end_s:
                rows.append(row)
        rows.sort(key=lambda row: row.at_s)  # stable: rows of one moment keep the file's order
        if not rows:
            raise TraceError(f"{self.path}: no row lies in [{self.start_s:g}, {end_s:g}) s")
        return tuple(rows[: self.max_rows]), bad

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_read", None)
        return state
