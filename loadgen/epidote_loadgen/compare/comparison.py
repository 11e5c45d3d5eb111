"""This file is about two runs' documents side by side: figures, significance, what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epidote_loadgen.compare.significance import Difference, Statistic, difference, mean, quantile
from epidote_loadgen.report.requests import Row, rows

Document = dict[str, Any]
# Of which better is lower; shares are better higher.
LATENCIES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
QUANTILES = (("p50", 0.5), ("p99", 0.99))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure of one class of requests in both runs."""

    class_name: str  # "" of all
    figure: str
    unit: str  # s, share
    difference: Difference
    num_before: int
    num_after: int

    @property
    def is_better(self) -> bool | None:
        """None: chance alone may have made the difference."""
        if not self.difference.is_significant:
            return None
        return (self.difference.change < 0.0) == (self.unit == "s")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`asked_differs` names settings by dotted path, with both values."""

    before: Document
    after: Document
    figures: tuple[Compared, ...]
    asked_differs: tuple[tuple[str, Any, Any], ...]

    @property
    def is_worse(self) -> bool:
        """Whether any figure got worse by more than chance."""
        return any(figure.is_better is False for figure in self.figures)


def compare(before: Document, after: Document, *, confidence: float = 0.95) -> Comparison:
    """Attainment, answered share, right answers and latencies: of all, and by SLO class.

    A family of k figures is judged at 1 - (1 - confidence) / k each (Bonferroni), so that among
    many figures chance does not make one look like a change.
    """
    sides = [
        sorted(rows(run), key=lambda row: (row["intended_send_s"], row["index"]))
        for run in (before, after)
    ]
    found = []
    for name in ["", *_classes(before, after)]:
        found += _figures(name, *[_members(side, name) for side in sides])
    level = 1.0 - (1.0 - confidence) / max(1, len(found))
    figures = tuple(
        Compared(
            class_name=name,
            figure=figure,
            unit=unit,
            difference=difference(one, other, statistic, confidence=level),
            num_before=len(one),
            num_after=len(other),
        )
        for name, figure, unit, statistic, one, other in found
    )
    return Comparison(
        before=before,
        after=after,
        figures=figures,
        asked_differs=tuple(_differing(before.get("config"), after.get("config"))),
    )


Wanted = tuple[str, str, str, Statistic, list[float], list[float]]


def _figures(name: str, before: Sequence[Row], after: Sequence[Row]) -> list[Wanted]:
    """What both runs have values of."""
    wanted: list[Wanted] = []

    def add(figure: str, unit: str, statistic: Statistic, sides: list[list[float]]) -> None:
        if all(sides):
            wanted.append((name, figure, unit, statistic, sides[0], sides[1]))

    for figure, field in (("attainment", "good"), ("right answers", "correct")):
        add(figure, "share", mean, [_known(side, field) for side in (before, after)])
    answered = [[float(row["status"] == "ok") for row in side] for side in (before, after)]
    add("answered", "share", mean, answered)
    for label, field in LATENCIES:
        known = [_known(side, field) for side in (before, after)]
        for quantile_name, q in QUANTILES:
            add(f"{label} {quantile_name}", "s", quantile(q), known)
    return wanted


def _known(side: Sequence[Row], field: str) -> list[float]:
    return [float(row[field]) for row in side if row[field] is not None]


def _classes(before: Document, after: Document) -> list[str]:
    """SLO classes of both runs, where there are several: one class is all."""
    names = [name for name in before.get("classes") or {} if name in (after.get("classes") or {})]
    return names if len(names) > 1 else []


def _members(side: Sequence[Row], name: str) -> list[Row]:
    return [row for row in side if not name or row["slo_class"] == name]


def _differing(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves of two configurations that are not equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in [*one, *(key for key in other if key not in one)]:
            inner = f"{path}.{key}" if path else str(key)
            found += _differing(one.get(key), other.get(key), inner)
        return found
    return [] if one == other else [(path, one, other)]
