"""This file is about how a run stands, as a live view needs it: figures so far and their past."""

from collections import deque
from dataclasses import dataclass, field

from epidote_loadgen.measures.summary import TOTAL, Gatherer, Summary
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress, RequestStatus
from epidote_loadgen.verdict.interval import each_of, wilson

PAST = 48  # points of a sparkline


@dataclass
class RunState:
    """Feed it progress; everything is of the requests finished so far."""

    plan: RunPlan
    gatherer: Gatherer = field(init=False)
    last: Progress | None = None
    asked: deque[float] = field(default_factory=lambda: deque(maxlen=PAST))
    finished: deque[float] = field(default_factory=lambda: deque(maxlen=PAST))
    in_flight: deque[float] = field(default_factory=lambda: deque(maxlen=PAST))
    objectives_met: dict[tuple[str, int], list[int]] = field(default_factory=dict)  # met, judged

    def __post_init__(self) -> None:
        self.gatherer = Gatherer(self.plan.slo)

    def add(self, progress: Progress) -> None:
        self.last = progress
        self.asked.append(progress.asked_rps)
        self.finished.append(progress.finished_rps)
        self.in_flight.append(float(progress.num_in_flight))
        for record in progress.recent:
            self.gatherer.add(record)
            slo_class = self.plan.slo.class_of(record)
            if slo_class is None:
                continue
            for number, objective in enumerate(slo_class.objectives):
                if not objective.judges(record):
                    continue
                counts = self.objectives_met.setdefault((slo_class.name, number), [0, 0])
                counts[0] += objective.met_by(record)
                counts[1] += 1

    @property
    def total(self) -> Summary:
        return self.gatherer.summaries[TOTAL]

    def errors(self) -> dict[str, int]:
        """Requests that did not end well, by kind, most frequent first."""
        by_status = self.total.by_status.most_common()
        return {s.value: n for s, n in by_status if s is not RequestStatus.OK and n}

    def standing(self, class_name: str, number: int) -> tuple[float, str]:
        """An objective's share so far, and whether that is `good`, `bad` or `open`.

        Neighbours hang together, which only the verdict accounts for: this is a glance.
        """
        met, judged = self.objectives_met.get((class_name, number), [0, 0])
        if not judged:
            return 1.0, "open"
        ratio = next(
            c.objectives[number].ratio for c in self.plan.slo.classes if c.name == class_name
        )
        each = each_of(self.plan.confidence, self.plan.slo.num_objectives)
        interval = wilson(met, judged, confidence=each)
        if interval.low >= ratio:
            return met / judged, "good"
        return met / judged, "bad" if interval.high < ratio else "open"
