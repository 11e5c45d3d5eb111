"""This file is about seeing a move of experts through: begun, in force everywhere, or late.

What was ordered is in the fleet (each worker tells its target), not here: an operator that starts
in the middle of a move finds it, and gives it another deadline.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from epidote_operator.observe.gateway_client import WorkerExperts
from epidote_operator.status.experts import ExpertsPlaced

DEADLINE_S = 300.0  # thousands of slots at some milliseconds each, while requests run
MAX_DOUBLINGS = 5  # of the deadline: 300 s × 32 are nearly three hours
PAUSE_S = 120.0  # after a move: what it changed is seen before the next one is thought of


@dataclass
class MoveWatch:
    """One fleet's moves over ticks. Lost with the operator, without harm."""

    deadline_s: float = DEADLINE_S
    pause_s: float = PAUSE_S
    _since_s: float | None = field(default=None, init=False)  # this try; None: nothing moves
    _num_late: int = field(default=0, init=False)
    _quiet_until_s: float = field(default=0.0, init=False)

    def look(
        self, workers: Sequence[WorkerExperts], imbalance: float, now_s: float
    ) -> tuple[ExpertsPlaced, bool]:
        """How far workers are, and whether another placement may be thought of.

        None may while one is on its way, until it is late: then with longer and longer breaks.
        """
        moving = [worker for worker in workers if worker.is_moving]
        may_propose = False
        if not moving:
            if self._since_s is not None:
                self._since_s, self._num_late = None, 0
                self._quiet_until_s = now_s + self.pause_s
            may_propose = now_s >= self._quiet_until_s
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s >= self._since_s + self.deadline_s * 2 ** min(self._num_late, MAX_DOUBLINGS):
            self._since_s, self._num_late = now_s, self._num_late + 1
            may_propose = True
        targets = Counter(worker.target for worker in moving or workers if worker.target)
        seen = ExpertsPlaced(
            num_workers=len(workers),
            num_moving=len(moving),
            target=targets.most_common(1)[0][0] if targets else "",
            imbalance=imbalance,
            num_late=self._num_late,
            refusal=next((w.refusal for w in moving if w.refusal), ""),
        )
        return seen, may_propose
