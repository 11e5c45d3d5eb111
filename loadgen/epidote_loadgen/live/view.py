"""This file is about showing a run while it goes on: a dashboard, or plain lines."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from epidote_loadgen.consoles import FrankConsole
from epidote_loadgen.live.dashboard import clock, dashboard
from epidote_loadgen.live.run_state import RunState
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress

LINE_EVERY_S = 5.0


class LiveView:
    """A context manager; `update` is what `runner.running.run` calls.

    In a terminal a dashboard that redraws in place; elsewhere a line every `LINE_EVERY_S`, for
    logs. `console` should be of stderr: results go to stdout.
    """

    def __init__(self, plan: RunPlan, *, console: Console | None = None) -> None:
        self._console = console or FrankConsole(stderr=True)
        self._state = RunState(plan)
        self._live: Live | None = None
        self._next_line_s = 0.0
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                dashboard(self._state), console=self._console, auto_refresh=False, transient=False
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Take a glance in, and show it."""
        self._state.add(progress)
        if self._live is not None:
            self._live.update(dashboard(self._state), refresh=True)
        elif progress.at_s >= self._next_line_s:
            self._next_line_s = progress.at_s + LINE_EVERY_S
            self._console.print(
                plain_line(self._state), markup=False, highlight=False, soft_wrap=True
            )


def plain_line(state: RunState) -> str:
    """One line for a log: time, rates, latencies, what is promised, what went wrong."""
    last = state.last
    if last is None:
        return "starting"
    total = state.total
    parts = [
        clock(max(0.0, last.at_s)),
        f"asked {last.asked_rps:.1f}/s sent {last.sent_rps:.1f}/s done {last.finished_rps:.1f}/s",
        f"in flight {last.num_in_flight}",
    ]
    if last.num_waiting:
        parts.append(f"held back {last.num_waiting}")
    parts.append(f"{total.num_ok}/{total.num_requests} ok")
    if total.ttft.count:
        p50, p99 = (1000 * total.ttft.quantile(q) for q in (0.5, 0.99))
        parts.append(f"TTFT p50 {p50:.0f} p99 {p99:.0f} ms")
    if total.tpot.count:
        p50, p99 = (1000 * total.tpot.quantile(q) for q in (0.5, 0.99))
        parts.append(f"TPOT p50 {p50:.0f} p99 {p99:.0f} ms")
    for slo_class in state.plan.slo.classes:
        for number, objective in enumerate(slo_class.objectives):
            share, _ = state.standing(slo_class.name, number)
            if (slo_class.name, number) not in state.objectives_met:
                continue
            parts.append(f"{slo_class.name} {share:.2%} of {objective.ratio:.0%}")
    for kind, count in state.errors().items():
        parts.append(f"{kind} {count}")
    return " | ".join(parts)
