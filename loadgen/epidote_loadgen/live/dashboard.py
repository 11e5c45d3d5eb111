"""This file is about the live view's picture: a pure function of how the run stands."""

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from epidote_loadgen.live.run_state import RunState
from epidote_loadgen.live.sparkline import sparkline
from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.measures.summary import Summary
from epidote_loadgen.slo import SloClass

COLOURS = {"good": "green", "bad": "red", "open": "yellow"}
MOST_ERRORS = 5


def dashboard(state: RunState) -> RenderableType:
    """Progress, rates, latencies against promises, errors, and the client itself."""
    parts: list[RenderableType] = [_progress(state), _rates(state), _classes(state)]
    if state.errors():
        parts.append(_errors(state))
    parts.append(_client(state))
    title = f"[bold]epidote-loadgen[/] → {state.plan.target.url}"
    subtitle = f"seed {state.plan.seed} · {state.plan.config_digest[:12]}"
    return Panel(Group(*parts), title=title, subtitle=subtitle, box=box.ROUNDED, padding=(0, 1))


def clock(seconds: float) -> str:
    """
    >>> clock(75.2), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _progress(state: RunState) -> RenderableType:
    at_s = max(0.0, state.last.at_s) if state.last else 0.0
    planned_s = state.plan.duration_s
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    if planned_s is None:
        row.add_row(clock(at_s), Text("until all requests are answered", style="dim"), "")
        return row
    tail = "draining" if at_s > planned_s else f"{min(1.0, at_s / planned_s):.0%}"
    bar = ProgressBar(total=planned_s, completed=min(at_s, planned_s))
    row.add_row(f"{clock(at_s)} / {clock(planned_s)}", bar, tail)
    return row


def _rates(state: RunState) -> RenderableType:
    last = state.last
    table = Table(box=None, padding=(0, 1), show_header=False, expand=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    asked, sent = (last.asked_rps, last.sent_rps) if last else (0.0, 0.0)
    finished = last.finished_rps if last else 0.0
    flying, waiting = (last.num_in_flight, last.num_waiting) if last else (0, 0)
    table.add_row("asked", f"{asked:.1f}/s", sparkline(state.asked))
    behind = last is not None and sent < 0.9 * asked and waiting > 0
    delivered = Text(f"{sent:.1f}/s", style="red" if behind else "")
    table.add_row("sent", delivered, "")
    table.add_row("finished", f"{finished:.1f}/s", sparkline(state.finished))
    held = f"{flying}" + (f" (+{waiting} held back)" if waiting else "")
    table.add_row("in flight", held, sparkline(state.in_flight))
    total = state.total
    told = f"{total.num_requests} done, {total.num_ok} ok"
    if total.num_scored:
        told += f", {total.num_correct} of {total.num_scored} answers right"
    table.add_row("requests", told, "")
    return table


def _classes(state: RunState) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=True)
    table.add_column("class", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    for name in ("TTFT p50", "p99", "TPOT p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("promise", ratio=1)
    table.add_column("met", justify="right", no_wrap=True)
    for slo_class in state.plan.slo.classes:
        summary = state.gatherer.summaries[slo_class.name]
        for number, objective in enumerate(slo_class.objectives):
            share, standing = state.standing(slo_class.name, number)
            cells = _figures(summary, slo_class) if number == 0 else [""] * 6
            promise = Text(f"{objective.name} for {100 * objective.ratio:g} %", style="dim")
            colour = COLOURS[standing] if summary.num_requests else "dim"
            met = Text(f"{share:.2%}" if summary.num_requests else "–", style=colour)
            table.add_row(*cells, promise, met)
    if not state.plan.slo.classes:
        table.add_row(*_figures(state.total, None), Text("nothing promised", style="dim"), "")
    return table


def _figures(summary: Summary, slo_class: SloClass | None) -> list[RenderableType]:
    objectives = slo_class.objectives if slo_class else ()
    ttft = min((o.ttft_s for o in objectives if o.ttft_s is not None), default=None)
    tpot = min((o.tpot_s for o in objectives if o.tpot_s is not None), default=None)
    return [
        slo_class.name if slo_class else "all",
        str(summary.num_requests),
        *_quantiles(summary.ttft, ttft),
        *_quantiles(summary.tpot, tpot),
    ]


def _quantiles(histogram: Histogram, limit_s: float | None) -> list[RenderableType]:
    cells: list[RenderableType] = []
    for q in (0.5, 0.99):
        value_s = histogram.quantile(q)
        over = limit_s is not None and value_s > limit_s
        text = f"{1000 * value_s:.0f} ms" if histogram.count else "–"
        cells.append(Text(text, style="red" if over else ""))
    return cells


def _errors(state: RunState) -> RenderableType:
    told = Text("not answered: ", style="red")
    told.append(", ".join(f"{kind} {count}" for kind, count in state.errors().items()))
    for message, count in state.total.by_error.most_common(MOST_ERRORS):
        told.append(f"\n  {count} × {message}", style="dim")
    return told


def _client(state: RunState) -> RenderableType:
    last = state.last
    if last is None:
        return Text("")
    lag_ms = 1000 * last.loop_lag_s
    lateness_ms = 1000 * state.total.lateness.quantile(0.99)
    busy = last.cpu_utilization > 0.9 or lag_ms > 50.0
    return Text(
        f"client: CPU {last.cpu_utilization:.0%} of a core, loop lag {lag_ms:.1f} ms, "
        f"sends late by {lateness_ms:.1f} ms (p99)",
        style="red" if busy else "dim",
    )
