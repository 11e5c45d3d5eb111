"""This file is about what a service's surroundings make of its status: names, Secrets, policies.

`conditions` judges the fleet; what is said here is laid over that.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.service_status import (
    Condition,
    ConditionType,
    MultimodalServiceStatus,
)
from epidote_operator.status.conditions import FALSE, Finding, renewed

READY, POLICY = ConditionType.READY.value, ConditionType.CACHE_POLICY.value


class Trouble(Protocol):
    """What is wrong with one object of a service; the rest goes on. As text it says it all."""

    @property
    def reason(self) -> str: ...


def with_condition(
    status: MultimodalServiceStatus,
    kind: str,
    finding: Finding,
    before: Iterable[Condition],
    *,
    now_s: float,
    generation: int | None,
) -> MultimodalServiceStatus:
    """`status` with one condition replaced or added; `before`: those that readers know."""
    known = {condition.type: condition for condition in before}
    made = renewed(kind, finding, known.get(kind), now_s=now_s, generation=generation)
    conditions = {condition.type: condition for condition in status.conditions} | {kind: made}
    return status.model_copy(update={"conditions": tuple(conditions.values())})


def refused(
    status: MultimodalServiceStatus, error: InvalidSpec, generation: int | None, now_s: float
) -> MultimodalServiceStatus:
    """Ready is False for the spec's sake; the fleet of the last good spec serves on."""
    return with_condition(
        status.model_copy(update={"observed_generation": generation}),
        READY,
        (FALSE, "InvalidSpec", str(error)),
        status.conditions,
        now_s=now_s,
        generation=generation,
    )


def troubled(
    status: MultimodalServiceStatus,
    before: MultimodalServiceStatus,
    troubles: Sequence[Trouble],
    generation: int | None,
    now_s: float,
) -> MultimodalServiceStatus:
    """Ready is False as long as an object of the service can't be what it shall be."""
    if not troubles:
        return status
    finding = (FALSE, troubles[0].reason, "; ".join(map(str, troubles)))
    return with_condition(
        status, READY, finding, before.conditions, now_s=now_s, generation=generation
    )
