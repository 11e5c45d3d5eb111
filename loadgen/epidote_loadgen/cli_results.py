"""This file is about showing and writing what a run found."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from epidote_loadgen.consoles import FrankConsole
from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.measures.summary import TOTAL, Summary, summarise
from epidote_loadgen.outputs.document import document
from epidote_loadgen.outputs.saving import Files, save
from epidote_loadgen.records import RequestStatus, RunResult
from epidote_loadgen.slo import SloTable
from epidote_loadgen.verdict.verdict import Outcome, Verdict
from epidote_loadgen.verdict_file import write_verdict

STDOUT = Path("-")
_COLOURS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow"}


@dataclass(frozen=True, kw_only=True)
class OutputPaths:
    """Where to write what; None: not at all. JSON to `STDOUT` is printed."""

    files: Files = field(default_factory=Files)
    verdict: Path | None = None

    def by_flag(self) -> dict[str, Path | None]:
        named = {f"--{name}": path for name, path in vars(self.files).items()}
        return {**named, "--verdict-file": self.verdict}


def write_outputs(result: RunResult, slo: SloTable, verdict: Verdict, paths: OutputPaths) -> bool:
    """Write all that was asked for; whether all could be. What can't is told on stderr."""
    whole = document(result, slo, verdict)
    on_stdout = paths.files.json == STDOUT
    files = replace(paths.files, json=None) if on_stdout else paths.files
    problems = save(files, whole, result, slo)
    if paths.verdict is not None:
        try:
            write_verdict(paths.verdict, verdict, num_requests=len(result.records))
        except OSError as error:
            problems.append(f"{paths.verdict}: can't be written: {error.strerror or error}")
    if on_stdout:  # last: who reads it may be gone, and the files must not be lost with it
        text = json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n"
        problems += told_on_stdout(lambda: sys.stdout.write(text))
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    if problems:
        with tempfile.NamedTemporaryFile(
            "w", prefix="epidote-loadgen-", suffix=".json", delete=False
        ) as rescue:
            rescue.write(json.dumps(whole))
        typer.echo(f"the run was saved as {rescue.name}", err=True)
    return not problems


def told_on_stdout(tell: Callable[[], object]) -> list[str]:
    """What kept it from being told: the reader went away, the disk is full."""
    try:
        tell()
        sys.stdout.flush()
    except OSError as error:
        # Whatever is still buffered must not fail once more at the interpreter's end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return [f"stdout: can't be written: {error.strerror or error}"]
    return []


def shown(result: RunResult, slo: SloTable, verdict: Verdict, *, on_stderr: bool) -> bool:
    """Whether the results could be shown. Why they could not is told on stderr."""
    if on_stderr:
        with contextlib.suppress(OSError):  # the JSON is on stdout: nothing is lost
            show(result, slo, verdict, FrankConsole(stderr=True))
        return True
    problems = told_on_stdout(lambda: show(result, slo, verdict, FrankConsole()))
    for problem in problems:
        with contextlib.suppress(OSError):
            typer.echo(f"error: {problem}", err=True)
    return not problems


def show(result: RunResult, slo: SloTable, verdict: Verdict, console: Console) -> None:
    """The verdict first, then each promise, then the figures."""
    summaries = summarise(result.records, slo)
    colour = _COLOURS[verdict.outcome]
    console.print(f"[bold {colour}]{verdict.outcome}[/] {verdict.reason}", highlight=False)
    if verdict.objectives:
        console.print(_promises(verdict))
    console.print(_figures(summaries))
    total = summaries[TOTAL]
    watch = result.self_watch
    lines = [
        f"{total.num_requests} requests in {result.duration_s:.1f} s, "
        f"{total.num_ok} ended well, goodput "
        f"{total.num_good / result.duration_s if result.duration_s else 0.0:.2f}/s, "
        f"{total.output_tokens} output tokens",
        f"client: lateness p99 {1000 * watch.lateness_p99_s:.2f} ms, loop lag p99 "
        f"{1000 * watch.loop_lag_p99_s:.2f} ms, CPU {watch.cpu_utilization:.0%} of a core, "
        f"{watch.max_in_flight} in flight at most, {watch.num_connections} connections"
        + (
            f", waited {watch.cpu_wait_ratio:.0%} of the time for a processor"
            if watch.cpu_wait_ratio > 0.1
            else ""
        )
        + (f", {watch.num_retries} requests sent again" if watch.num_retries else ""),
        f"seed {result.seed}, configuration {result.config_digest}",
    ]
    if total.num_scored:
        share = total.num_correct / total.num_scored
        lines.insert(1, f"{share:.1%} of {total.num_scored} scored answers were right")
    errors = [
        f"{count} {status}"
        for status, count in total.by_status.most_common()
        if status is not RequestStatus.OK
    ]
    if errors:
        lines.insert(1, "not well: " + ", ".join(errors))
        told = ", ".join(f"{count} x {text}" for text, count in total.by_error.most_common(5))
        lines.insert(2, f"mostly: {told}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(*titles: str) -> Table:
    """Whose columns fold where there is no room: a cut figure would be another one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _promises(verdict: Verdict) -> Table:
    table = _table("class", "promise", "asked", "kept", "interval", "requests")
    # In a narrow terminal the others fold; the word that all is about stays whole.
    table.add_column("verdict", no_wrap=True, min_width=max(len(outcome) for outcome in Outcome))
    for found in verdict.objectives:
        table.add_row(
            found.class_name,
            found.objective.name,
            f"{found.objective.ratio:g}",
            f"{found.attainment:.4f}" if found.num_requests else "-",
            f"{found.interval.low:.4f} to {found.interval.high:.4f}",
            str(found.num_requests),
            f"[{_COLOURS[found.outcome]}]{found.outcome}[/]",
        )
    return table


def _figures(summaries: dict[str, Summary]) -> Table:
    titles = [f"{m} {q}" for m in ("TTFT", "ITL", "E2E") for q in _SHOWN]
    table = _table("ms", "requests", *titles)
    for name, summary in summaries.items():
        if name == TOTAL and len(summaries) == 2:
            continue  # the one class says the same
        cells: list[Any] = []
        for histogram in (summary.ttft, summary.itl, summary.e2e):
            cells += [_ms(histogram, q) for q in _SHOWN.values()]
        table.add_row(name or "all", str(summary.num_requests), *cells)
    return table


_SHOWN = {"p50": 0.5, "p99": 0.99}


def _ms(histogram: Histogram, q: float) -> str:
    return f"{1000 * histogram.quantile(q):.1f}" if histogram.counts else "-"
