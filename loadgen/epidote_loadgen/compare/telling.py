"""This file is about telling a comparison: a table for people, JSON for programs."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from epidote_loadgen.compare.comparison import Compared, Comparison

SCHEMA = "epidote-loadgen.comparison/1"
WORDS = {True: ("better", "green"), False: ("worse", "red"), None: ("no difference", "dim")}


def told(comparison: Comparison) -> RenderableType:
    """What was asked differently, then every figure with its verdict."""
    table = Table(show_edge=False)
    table.add_column("class", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for name in ("before", "after", "change", "interval of the change"):
        table.add_column(name, justify="right")
    # Whole in a narrow terminal, too: the others fold.
    table.add_column("", no_wrap=True, min_width=max(len(word) for word, _ in WORDS.values()))
    for figure in comparison.figures:
        word, colour = WORDS[figure.is_better]
        found = figure.difference
        table.add_row(
            figure.class_name or "all",
            figure.figure,
            _shown(found.before, figure.unit),
            _shown(found.after, figure.unit),
            _signed(found.change, figure.unit),
            f"{_signed(found.low, figure.unit)} to {_signed(found.high, figure.unit)}",
            Text(word, style=colour),
        )
    parts: list[RenderableType] = []
    if comparison.asked_differs:
        parts.append(Text("asked differently:", style="yellow"))
        parts += [
            Text(f"  {path}: {before!s} → {after!s}")
            for path, before, after in comparison.asked_differs
        ]
    parts.append(table)
    gpu = [_gpu(run) for run in (comparison.before, comparison.after)]
    if all(value is not None for value in gpu):
        parts.append(Text(f"GPU-seconds a good request: {gpu[0]:.4g} → {gpu[1]:.4g}"))
    return Group(*parts)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """A stable document; see docs/loadgen.md."""
    return {
        "schema": SCHEMA,
        "before": _about(comparison.before),
        "after": _about(comparison.after),
        "is_worse": comparison.is_worse,
        "asked_differs": [
            {"path": path, "before": before, "after": after}
            for path, before, after in comparison.asked_differs
        ],
        "figures": [_figure(figure) for figure in comparison.figures],
    }


def _figure(figure: Compared) -> dict[str, Any]:
    found = figure.difference
    return {
        "class": figure.class_name,
        "figure": figure.figure,
        "unit": figure.unit,
        "before": round(found.before, 6),
        "after": round(found.after, 6),
        "change": round(found.change, 6),
        "low": round(found.low, 6),
        "high": round(found.high, 6),
        "num_before": figure.num_before,
        "num_after": figure.num_after,
        "outcome": WORDS[figure.is_better][0],
    }


def _about(run: dict[str, Any]) -> dict[str, Any]:
    return {**run["run"], "outcome": run["verdict"]["outcome"]}


def _gpu(run: dict[str, Any]) -> float | None:
    value = (run.get("elasticity") or {}).get("gpu_seconds_per_good_request")
    return None if value is None else float(value)


def _shown(value: float, unit: str) -> str:
    return f"{100 * value:.2f} %" if unit == "share" else f"{1000 * value:.1f} ms"


def _signed(value: float, unit: str) -> str:
    return f"{100 * value:+.2f} %" if unit == "share" else f"{1000 * value:+.1f} ms"
