"""This file is about the last decisions: what changed, when, why, what would have changed it."""

from collections import Counter
from collections.abc import Iterable, Sequence

from epidote_operator.spec.service_status import MAX_DECISIONS, DecisionStatus
from epidote_operator.status.conditions import timestamp
from epidote_operator.status.experts import EXPERT_SLOTS, NOT_MOVED
from epidote_operator.status.fleet import Outcome
from epidote_planner.decision import AddWorkers, Plan

MAX_ACTIONS = 64


def decision_of(
    plan: Plan,
    outcome: Outcome,
    actions: Sequence[str],
    *,
    acts: bool,
    now_s: float,
    minimum: Sequence[AddWorkers] = (),
) -> DecisionStatus:
    """The plan as the status shows it. `actions` are its actions, one line each.

    `minimum`: workers that are started beside it, since the spec asks for them in any case.
    """
    explanation = plan.explanation
    is_done = not outcome.failure and not outcome.deferred and NOT_MOVED not in outcome.verbs()
    targets = Counter(plan.targets)
    for start in minimum:
        targets[start.lane] += start.count
    text = explanation.text
    if minimum:
        started = ", ".join(f"{start.count} {start.lane}" for start in minimum)
        text = (
            f"{explanation.reason.value}: start {started}, the least that the service asks for. "
            f"{explanation.counterfactual}"
        )
    return DecisionStatus(
        at=timestamp(now_s),
        reason=explanation.reason.value,
        binding=explanation.binding.value,
        targets={str(lane): count for lane, count in sorted(targets.items())},
        actions=tuple(actions[:MAX_ACTIONS]),
        carried_out=(acts or bool(minimum)) and is_done,
        text=text,
        counterfactual=explanation.counterfactual,
        inputs=dict(explanation.inputs),
    )


def is_changed(new: DecisionStatus, last: DecisionStatus | None) -> bool:
    """Whether people should hear of it: other targets or another reason, or something to do.

    In Advisory mode the same actions come up at every tick; they are told once. So are experts that
    should move, though counts differ at each look, and with them the best placement.
    """
    if last is None:
        return True
    differs = (new.reason, new.targets) != (last.reason, last.targets)
    return differs or (bool(new.actions) and _lasting(new.actions) != _lasting(last.actions))


def _lasting(actions: Iterable[str]) -> list[str]:
    return ["experts" if EXPERT_SLOTS in action else action for action in actions]


def remembered(
    new: DecisionStatus | None, before: Iterable[DecisionStatus]
) -> tuple[DecisionStatus, ...]:
    """The newest first, at most `MAX_DECISIONS`; an unchanged decision is not told again."""
    kept = tuple(before)
    if new is None or not is_changed(new, kept[0] if kept else None):
        return kept[:MAX_DECISIONS]
    return (new, *kept)[:MAX_DECISIONS]
