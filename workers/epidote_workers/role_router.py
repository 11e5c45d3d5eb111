"""This file is about reaching one worker, or any worker of a stage, through a plain Serve handle.

    handle.switch_role.remote(..., target="worker id")   that worker
    handle.status.remote(role="prefill")                 the least loaded that serves the stage
    handle.status.remote()                               any, least loaded first

The router reads these keyword arguments and leaves them in the call, so methods take
`target: str = ""` or `role: str = ""`. What a replica is doing comes from its
`record_routing_stats`, at most `STATS_PERIOD_S` old; a target is found by its id and needs none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ray.serve.request_router import RequestRouter

from epidote_core.roles import Role, Stage, WorkerState

STATS_PERIOD_S = 1.0


class Candidate(Protocol):
    """What the choice reads of Serve's `RunningReplica`."""

    @property
    def replica_id(self) -> Any: ...
    @property
    def routing_stats(self) -> Mapping[str, Any]: ...


def choose(
    candidates: Sequence[Any], *, target: str | None = None, role: str | None = None
) -> list[list[Any]]:
    """Ranks of candidates, best first; empty if nobody fits now (Serve then asks again)."""
    if target:
        return [[c] for c in candidates if c.replica_id.unique_id == target]
    fitting = [c for c in candidates if _serves(c.routing_stats or {}, role)]
    fitting.sort(key=lambda c: float((c.routing_stats or {}).get("load", 0)))
    return [[candidate] for candidate in fitting]


def _serves(stats: Mapping[str, Any], role: str | None) -> bool:
    if not role:
        return True
    if stats.get("state") != WorkerState.ROUTABLE or "role" not in stats:
        return False
    held = Role(stats["role"])
    return held.serves(Stage(role)) if role in set(Stage) else held.value == role


class RoleRouter(RequestRouter):  # type: ignore[misc]  # Ray is untyped
    """`choose` as a Serve request router."""

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        wanted = {}
        if pending_request is not None:
            wanted = pending_request.kwargs
            # else Serve asks again at once, for ever, and its loop hears of no new replica
            pending_request.routing_context.should_backoff = True
        return choose(candidate_replicas, target=wanted.get("target"), role=wanted.get("role"))
