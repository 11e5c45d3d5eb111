"""This file is about how far workers are with a placement of experts, and what is said of it."""

from dataclasses import dataclass

from epidote_operator.spec.service_status import ConditionStatus

NOT_MOVED = "NotMoved"  # the executor's verb for an order to move experts that nobody took
EXPERT_SLOTS = " expert slots to "  # in the line of an action that moves some
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


@dataclass(frozen=True, kw_only=True)
class ExpertsPlaced:
    """Where experts lie on the workers that hold whole ones. `target`: placement they were told.

    `num_late`: deadlines that have passed since the move began, each longer than the one before.
    """

    num_workers: int
    num_moving: int
    target: str  # "": none
    imbalance: float  # of what was counted lately; 1.0 as long as nothing was
    num_late: int = 0
    refusal: str = ""  # one worker's, why it won't have the target

    def finding(self) -> tuple[ConditionStatus, str, str]:
        """As a condition: status, reason, message."""
        there = f"{self.num_workers - self.num_moving} of {self.num_workers} workers"
        if not self.num_moving:
            told = f"placement {self.target}" if self.target else "the placement they began with"
            skew = f"the busiest rank has {self.imbalance:.2f} times the mean"
            return TRUE, "Placed", f"every expert is where it shall be ({told}): {skew}"
        told = f"placement {self.target} is in force on {there}"
        if self.num_late or self.refusal:
            why = self.refusal or "the others should have it by now"
            return FALSE, "MoveLate", f"{told}; {why}. Requests are served; it is tried again"
        return FALSE, "Moving", told
