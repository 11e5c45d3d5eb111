"""This file is about the sweep: probes at rising and then closing rates, until the knee is known.

max_goodput_rps in the sense of DistServe (Zhong et al., OSDI 2024): the highest rate at which every
objective holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress, RunResult
from epidote_loadgen.runner.running import Interrupt, RunFailed, run
from epidote_loadgen.search.bracketing import RateSearch
from epidote_loadgen.search.cooling import cool_down, idle_ttft_s
from epidote_loadgen.search.probe_plan import probe_plan
from epidote_loadgen.search.saturation import SaturationWatch
from epidote_loadgen.verdict.verdict import Outcome, Verdict, judge

INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How to search. `probe_s` should be many times the largest limit: a queue grows slowly
    just above the knee."""

    start_rps: float
    min_rps: float = 0.01
    max_rps: float = float("inf")
    tolerance: float = 0.05
    probe_s: float = 30.0
    min_requests: int = 400  # per probe; below, a share of 0.99 can't be told
    extend: float = 3.0  # an inconclusive probe is repeated once, so much longer
    cool_down_s: float = 1.0  # at least
    max_cool_down_s: float = 120.0
    max_probes: int = 40

    def __post_init__(self) -> None:
        for name in ("probe_s", "cool_down_s", "max_cool_down_s"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be a time in seconds, got {getattr(self, name)}")


class ProbeEnd(StrEnum):
    """Why a probe ended."""

    COMPLETE = "complete"
    SATURATED = "saturated"  # stopped early: more misses than the promise has room for
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One rate, tried."""

    rps: float
    duration_s: float
    num_requests: int
    attainment: float  # of the objective that is worst off, over its ratio
    verdict: Verdict
    held: bool
    end: ProbeEnd
    cool_down_s: float
    void_reason: str


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The knee lies in [low, high]. `max_goodput_rps` is low: the highest rate that held.

    `is_decided` is False when the bracket did not close: interrupted, a limit of the search was
    met, or the client was the bottleneck (`reason` says which).
    """

    max_goodput_rps: float
    high_rps: float
    probes: tuple[Probe, ...]
    is_decided: bool
    reason: str
    is_interrupted: bool = False


def sweep(
    plan: RunPlan,
    settings: SweepSettings,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_probe: Callable[[Probe], None] = lambda probe: None,
    interrupt: Interrupt | None = None,
) -> SweepResult:
    """Find the highest rate at which every objective of the plan holds.

    Raises:
        TargetUnreachable, RunFailed, InvalidTarget, ValueError: as `run`.
    """
    return _Sweep(plan, settings, on_progress, on_probe, interrupt or Interrupt()).search()


class _Sweep:
    def __init__(
        self,
        plan: RunPlan,
        settings: SweepSettings,
        on_progress: Callable[[Progress], None],
        on_probe: Callable[[Probe], None],
        interrupt: Interrupt,
    ) -> None:
        if not any(c.objectives for c in plan.slo.classes):
            raise ValueError("slo: a sweep needs at least one objective")
        self._plan = plan
        self._settings = settings
        self._on_progress = on_progress
        self._on_probe = on_probe
        self._interrupt = interrupt
        self._probes: list[Probe] = []
        self._idle_s = 0.0

    def search(self) -> SweepResult:
        settings = self._settings
        rates = RateSearch(
            start_rps=settings.start_rps,
            tolerance=settings.tolerance,
            min_rps=settings.min_rps,
            max_rps=settings.max_rps,
        )
        reason = ""
        while not reason and (rps := rates.next_rps()) is not None:
            if len(self._probes) >= settings.max_probes:
                reason = f"{settings.max_probes} probes did not close the bracket"
                break
            try:
                probe = self._try(rps)
            except RunFailed:
                if not self._interrupt.stop.is_set():
                    raise
                reason = INTERRUPTED  # before the probe had begun
                break
            if probe.end is ProbeEnd.INTERRUPTED:
                reason = INTERRUPTED
            elif probe.void_reason and probe.held:
                # A client that could not send as asked proves nothing by succeeding.
                reason = f"at {rps:g} requests/s the client was the bottleneck: {probe.void_reason}"
            else:
                rates.tell(rps, held=probe.held)
        if not reason and rates.low_rps >= settings.max_rps:
            reason = f"every rate up to max_rps {settings.max_rps:g} held"
        elif not reason and rates.low_rps == 0.0:
            reason = f"no rate down to min_rps {settings.min_rps:g} held"
        return SweepResult(
            max_goodput_rps=rates.low_rps,
            high_rps=rates.high_rps,
            probes=tuple(self._probes),
            is_decided=not reason,
            reason=reason,
            is_interrupted=reason == INTERRUPTED,
        )

    def _try(self, rps: float) -> Probe:
        """A probe; repeated longer if the first says neither yes nor no."""
        duration_s = max(self._settings.probe_s, self._settings.min_requests / rps)
        probe = self._probe(rps, duration_s)
        if (
            probe.verdict.outcome is Outcome.INCONCLUSIVE
            and probe.end is ProbeEnd.COMPLETE
            and not probe.void_reason
        ):
            probe = self._probe(rps, self._settings.extend * duration_s)
        return probe

    def _probe(self, rps: float, duration_s: float) -> Probe:
        plan = probe_plan(
            self._plan,
            rps=rps,
            duration_s=duration_s,
            seed=self._plan.seed + len(self._probes),
        )
        if not self._probes:
            idle_s = idle_ttft_s(plan, stop=self._interrupt.stop)
            if idle_s is None:
                # `run` tells an unreachable target apart from one that only refuses.
                self._idle_s = float("inf")
            else:
                self._idle_s = idle_s
        cooled_s = 0.0
        if self._probes:
            cooled_s = cool_down(
                plan,
                self._idle_s,
                at_least_s=self._settings.cool_down_s,
                at_most_s=self._settings.max_cool_down_s,
                stop=self._interrupt.stop,
            )
        result, end = self._run(plan, num_planned=round(rps * duration_s))
        verdict = judge(result.records, plan.slo, confidence=plan.confidence)
        # One that no request of the probe was about decides nothing; if that is all, nothing held.
        known = [found for found in verdict.objectives if found.num_requests]
        worst = min(known, key=lambda v: v.attainment / v.objective.ratio, default=None)
        probe = Probe(
            rps=rps,
            duration_s=result.duration_s,
            num_requests=len(result.records),
            attainment=worst.attainment if worst is not None else 0.0,
            verdict=verdict,
            # Still undecided after a long look: the point estimate is the best there is.
            held=end is not ProbeEnd.SATURATED
            and bool(known)
            and all(v.attainment >= v.objective.ratio for v in known),
            end=end,
            cool_down_s=cooled_s,
            void_reason=result.void_reason,
        )
        self._probes.append(probe)
        self._on_probe(probe)
        return probe

    def _run(self, plan: RunPlan, *, num_planned: int) -> tuple[RunResult, ProbeEnd]:
        watch = SaturationWatch(plan.slo, num_planned)
        ours = Interrupt(outer=self._interrupt.stop)
        saturated = False

        def look(progress: Progress) -> None:
            nonlocal saturated
            self._on_progress(progress)
            saturated = saturated or watch.add(progress)
            if saturated:
                ours.stop.set()
                ours.abandon.set()

        result = run(plan, on_progress=look, interrupt=ours)
        if self._interrupt.stop.is_set():
            return result, ProbeEnd.INTERRUPTED
        return result, ProbeEnd.SATURATED if saturated else ProbeEnd.COMPLETE
