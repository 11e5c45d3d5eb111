"""This file is about the verdict of a run: PASS, FAIL or INCONCLUSIVE, and the exit code.

An objective passes when the whole confidence interval of its attainment reaches the ratio, fails
when all of it lies below, and is inconclusive in between. The intervals of several objectives are
widened so that all hold together: a plan of many promises is no likelier to be judged wrong. A void
run (the client was the bottleneck) has no verdict about the service.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from epidote_loadgen.records import RequestRecord, RequestStatus
from epidote_loadgen.slo import Objective, SloTable
from epidote_loadgen.verdict.interval import (
    Interval,
    design_effect,
    each_of,
    more_requests,
    wilson,
)


class Outcome(StrEnum):
    """What is known about a promise."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class ExitCode(IntEnum):
    """Of the command; a release gate rests on them."""

    MET = 0
    MISSED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNDECIDED = 4  # inconclusive, or the client was the bottleneck


@dataclass(frozen=True, kw_only=True)
class ObjectiveVerdict:
    """One objective of one class. `more_requests` would settle an inconclusive one; None: none."""

    class_name: str
    objective: Objective
    num_requests: int
    num_met: int
    interval: Interval
    design_effect: float
    outcome: Outcome
    more_requests: int | None = 0

    @property
    def attainment(self) -> float:
        """1.0 of no requests."""
        return self.num_met / self.num_requests if self.num_requests else 1.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The run's. `reason` is one sentence for a person.

    `num_cut` requests were ended by our own interrupt: they count neither as met nor as missed.
    All intervals hold together with `confidence`, each of them with `each_confidence`.
    """

    outcome: Outcome
    exit_code: ExitCode
    objectives: tuple[ObjectiveVerdict, ...]
    reason: str
    num_cut: int = 0
    confidence: float = 0.95
    each_confidence: float = 0.95


def judge(
    records: Sequence[RequestRecord],
    slo: SloTable,
    *,
    void_reason: str = "",
    interrupted: bool = False,
    confidence: float = 0.95,
) -> Verdict:
    """The verdict over all records; they may come in any order.

    An interrupted run can fail, but it can't pass: the rest of the plan was never tried. What the
    interrupt itself cut is left out; those that were complete by then are the faster ones, so that
    their failing is sure and their passing is not.
    """
    in_time = sorted(records, key=lambda record: (record.intended_send_s, record.index))
    by_class: dict[str, list[RequestRecord]] = {c.name: [] for c in slo.classes}
    for record in in_time:
        slo_class = slo.class_of(record)
        if slo_class is not None:
            by_class[slo_class.name].append(record)
    each = each_of(confidence, slo.num_objectives)
    found = tuple(
        judge_objective(c.name, objective, by_class[c.name], confidence=each)
        for c in slo.classes
        for objective in c.objectives
    )
    if unreachable(in_time):
        reason = f"the target was never reached: {in_time[0].error}"
        code = ExitCode.UNREACHABLE
        return Verdict(
            outcome=Outcome.INCONCLUSIVE,
            exit_code=code,
            objectives=found,
            reason=reason,
            confidence=confidence,
            each_confidence=each,
        )
    num_cut = sum(record.is_cut for record in in_time)
    if void_reason:
        return Verdict(
            outcome=Outcome.INCONCLUSIVE,
            exit_code=ExitCode.UNDECIDED,
            objectives=found,
            reason=f"void, the client was the bottleneck: {void_reason}",
            num_cut=num_cut,
            confidence=confidence,
            each_confidence=each,
        )
    outcome = worst(v.outcome for v in found)
    reason = explain(found, num_cut=num_cut)
    if len(found) > 1:
        reason = f"{reason} ({all_of(len(found), confidence, each)})"
    if interrupted:
        outcome = Outcome.FAIL if outcome is Outcome.FAIL else Outcome.INCONCLUSIVE
        cut = f"; {num_cut} requests cut by the interrupt are left out" if num_cut else ""
        reason = f"interrupted{cut}; until then {reason}"
    code = {Outcome.PASS: ExitCode.MET, Outcome.FAIL: ExitCode.MISSED}.get(
        outcome, ExitCode.UNDECIDED
    )
    return Verdict(
        outcome=outcome,
        exit_code=code,
        objectives=found,
        reason=reason,
        num_cut=num_cut,
        confidence=confidence,
        each_confidence=each,
    )


def all_of(count: int, confidence: float, each: float) -> str:
    """How sure the intervals are, in words.

    >>> all_of(20, 0.95, 0.9975)
    '20 promises, each at 99.75 %, so that all intervals hold together at 95 %'
    """
    return (
        f"{count} promises, each at {100.0 * each:.4g} %, so that all intervals hold together at "
        f"{100.0 * confidence:g} %"
    )


def never_reached(slo: SloTable, why: str) -> Verdict:
    """Of a run that sent nothing, because nobody answered."""
    return replace(
        judge((), slo),
        exit_code=ExitCode.UNREACHABLE,
        reason=f"the target was never reached: {why}",
    )


def judge_objective(
    class_name: str,
    objective: Objective,
    records: Sequence[RequestRecord],
    *,
    confidence: float = 0.95,
) -> ObjectiveVerdict:
    """`records` of this class, in order of time; only those that the objective judges count."""
    flags = [objective.met_by(record) for record in records if objective.judges(record)]
    met, total = sum(flags), len(flags)
    effect = design_effect(flags)
    interval = wilson(met / effect, total / effect, confidence=confidence)
    more: int | None = 0
    if interval.low >= objective.ratio:
        outcome = Outcome.PASS
    elif interval.high < objective.ratio:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
        more = more_requests(met, total, objective.ratio, effect=effect, confidence=confidence)
    return ObjectiveVerdict(
        class_name=class_name,
        objective=objective,
        num_requests=total,
        num_met=met,
        interval=interval,
        design_effect=effect,
        outcome=outcome,
        more_requests=more,
    )


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """FAIL before INCONCLUSIVE before PASS; INCONCLUSIVE of nothing."""
    seen = set(outcomes)
    if Outcome.FAIL in seen:
        return Outcome.FAIL
    return Outcome.PASS if seen == {Outcome.PASS} else Outcome.INCONCLUSIVE


def unreachable(records: Sequence[RequestRecord]) -> bool:
    """Whether there were requests and none got as far as a connection."""
    return bool(records) and all(r.status is RequestStatus.CONNECT for r in records)


def explain(found: Sequence[ObjectiveVerdict], *, num_cut: int = 0) -> str:
    """The objective that decided, in words."""
    if not found:
        return "nothing was promised: the plan has no objectives"
    outcome = worst(v.outcome for v in found)
    deciding = min(
        (v for v in found if v.outcome is outcome), key=lambda v: v.attainment - v.objective.ratio
    )
    if not deciding.num_requests and deciding.objective.correct:
        return (
            f"{deciding.class_name}: no answer was scored, so nothing is known of "
            f"{deciding.objective.name}: only classes of kind questions or paraphrases have "
            f"answers that can be; about {deciding.more_requests} could settle it"
        )
    if not deciding.num_requests:
        happened = "had come to its end" if num_cut else "was sent"
        return (
            f"{deciding.class_name}: no request of this class {happened}, so nothing is known of "
            f"{deciding.objective.name}; about {deciding.more_requests} could settle it"
        )
    text = (
        f"{deciding.class_name}: {deciding.objective.name} held for {deciding.attainment:.4f} of "
        f"{deciding.num_requests} requests, {deciding.objective.ratio:g} was promised "
        f"({deciding.interval.low:.4f} to {deciding.interval.high:.4f})"
    )
    if outcome is not Outcome.INCONCLUSIVE:
        return text
    if deciding.more_requests is None:
        return f"{text}; no number of requests would settle it"
    return f"{text}; about {deciding.more_requests} more requests would settle it"
