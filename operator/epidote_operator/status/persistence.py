"""This file is about what of a status is worth a write, and what a heir finds in it. Pure.

The planner's memory changes at every tick. Alone, it is written once a minute, and at once where it
holds a turning point (a switch, a back-off, the begin of an overload, another need): what a heir
can't see again is never older than a tick.
"""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from epidote_operator.kube.merge_patch import merge_patch
from epidote_planner import PlannerMemory

logger = logging.getLogger(__name__)

MEMORY_S = 60.0
Status = Mapping[str, Any]


def read_memory(data: Mapping[str, Any] | None) -> PlannerMemory:
    """The planner's memory; one that somebody has spoilt is worth a fresh start, not a failure."""
    memory = PlannerMemory.from_json(data)
    if memory.unreadable:
        logger.warning("planner's memory is unreadable", extra={"error": memory.unreadable})
    return memory


def later(one: PlannerMemory, other: PlannerMemory) -> PlannerMemory:
    """The one of the later tick; `one` if neither has a time."""
    return other if (other.at_s or 0.0) > (one.at_s or 0.0) else one


def dumped(status: BaseModel) -> dict[str, Any]:
    """A status as the API takes it, without empty texts.

    Merged into an object that has no status yet, Kubernetes 1.20 stores them as nulls, and then
    refuses the whole patch for having nulls.
    """
    found = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in found.items() if value != ""}


def worthwhile_patch(known: Status, after: Status) -> dict[str, Any]:
    """The merge patch from `known` to `after`; {} if it holds nothing but a slightly older memory.

    >>> worthwhile_patch({"workers": 3}, {"workers": 4})
    {'workers': 4}
    """
    patch: dict[str, Any] = merge_patch(known, after)
    if patch.keys() == {"memory"} and _is_fresh(known, after):
        return {}
    return patch


def newest(resource: dict[str, Any], latest: dict[str, Any] | None) -> dict[str, Any]:
    """`resource` with the status that our last patch left, where the cache lags behind it."""
    if latest is None or latest["metadata"]["uid"] != resource["metadata"]["uid"]:
        return resource
    ours, cached = (int(r["metadata"]["resourceVersion"]) for r in (latest, resource))
    return {**resource, "status": latest.get("status")} if ours > cached else resource


def _is_fresh(known: Status, after: Status) -> bool:
    before, now = (read_memory(status.get("memory")) for status in (known, after))
    if before.at_s is None or now.at_s is None or now.at_s - before.at_s >= MEMORY_S:
        return False
    return _turning_points(before) == _turning_points(now)


def _turning_points(memory: PlannerMemory) -> tuple[object, ...]:
    needs = [need for _, need in memory.pool_needs]
    return (
        dict(memory.last_switch_s),
        memory.starts_blocked_until_s,
        memory.overloaded_since_s,
        needs,
    )
