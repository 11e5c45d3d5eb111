"""This file is about a step that raised: whom it takes along, and whether its engine may go on.

Every request that the step computed, or whose blocks it moved, ends; nobody else notices. The
engine goes on if three things hold, else the error ends its thread and its worker starts anew:

- the device still answers (after an illegal access, every later call fails),
- the bookkeeping without those requests is sound,
- it is not one step after another.

A request that was alone in the step is the cause and is not tried again; of several, anyone may be,
and all may be tried elsewhere (`events.Fault`). Ranks of one model step together or not at all:
there every error ends the engine.
"""

import logging
from collections.abc import Callable

import torch

from epidote_engine.plan import Plan

logger = logging.getLogger(__name__)

MOST_IN_A_ROW = 3  # what breaks every step is no request's doing


class BrokenSteps:
    """Of one engine."""

    def __init__(self, device: str, *, may_go_on: bool) -> None:
        self._on_gpu = torch.device(device).type == "cuda"
        self._may_go_on = may_go_on
        self._in_a_row = 0

    def worked(self) -> None:
        """A step went well."""
        self._in_a_row = 0

    def contain(
        self,
        error: Exception,
        plans: list[Plan],
        end: Callable[[set[str]], None],
        errors: Callable[[], list[str]],
    ) -> None:
        """End the requests of `plans` by `end`; then `errors` says what is left unsound.

        Raises:
            Exception: `error`; the engine can't go on.
        """
        self._in_a_row += 1
        involved = {request_id for plan in plans for request_id in requests_of(plan)}
        if not self._may_go_on or not involved or self._in_a_row > MOST_IN_A_ROW:
            raise error
        if self._on_gpu:
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                raise error from None
        end(involved)
        if unsound := errors():
            logger.error("broken step left unsound books", extra={"errors": unsound[:5]})
            raise error
        logger.error(
            "step broken, its requests ended", extra={"requests": len(involved)}, exc_info=error
        )


def requests_of(plan: Plan) -> set[str]:
    """Ids of everybody that a step computes, or whose blocks it moves or gives away."""
    sequences = (
        *plan.decodes, *plan.restores, *plan.preempted, *plan.admitted, *plan.grown, *plan.granted,
        *(seq for seq, _, _ in plan.prefills), *(seq for seq, _ in plan.saves),
    )  # fmt: skip
    return {seq.request_id for seq in sequences}
