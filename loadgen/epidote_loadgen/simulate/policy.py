"""This file is about the seam between the simulator and whatever decides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epidote_planner.decision import Action
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Actions in order, what to remember, and a reason for the report."""

    actions: tuple[Action, ...] = ()
    memory: Any = None
    reason: str = ""
    text: str = ""


# From an observation and the last decision's memory to a decision. Pure, like `plan`.
Policy = Callable[[ClusterSnapshot, Any], Decision]


def planner(policy: PlannerPolicy) -> Policy:
    """Epidote's planner; its memory passes through JSON, as it does in a resource's status."""

    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        decided = plan(snapshot, policy, PlannerMemory.from_json(memory))
        return Decision(
            actions=decided.actions,
            memory=decided.memory.to_json(),
            reason=decided.explanation.reason.value,
            text=decided.explanation.text,
        )

    return decide


def nothing(snapshot: ClusterSnapshot, memory: Any) -> Decision:
    """A static fleet."""
    return Decision()
