"""This file is about watching and changing the fleet: `/admin/...`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from epidote_core.errors import InvalidRequest, WorkerLost
from epidote_gateway.admin_bodies import (
    Conservation,
    Fleet,
    RoleCounts,
    RoleRequest,
    ScaleRequest,
    Scaling,
    ShedBody,
    Switch,
    Switches,
    WorkerStatus,
)
from epidote_gateway.api_errors import ApiError
from epidote_gateway.backend import SwitchOutcome
from epidote_gateway.http_exchange import Exchange
from epidote_gateway.parsing import parse
from epidote_gateway.services import Services
from epidote_gateway.writing import encode

Handler = Callable[[Services, dict[str, str], Any], Awaitable[tuple[int, Any]]]
MAX_BODY_BYTES = 64 << 10


class AdminEndpoint:
    """An ASGI application: `handler(services, path parameters, body) -> (status, body)`."""

    def __init__(
        self,
        services: Services,
        handler: Handler,
        body: type[Any] | None = None,
        *,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._services = services
        self._handler = handler
        self._body, self._max_bytes = body, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        body = None
        if self._body is not None:
            body = parse(await exchange.read_json_body(self._max_bytes), self._body)
        limit_s = self._services.settings.admin_timeout_s
        if isinstance(body, RoleRequest):
            limit_s += 2 * body.deadline_s  # a drain, and a rollback
        try:
            async with asyncio.timeout(limit_s):
                status, answer = await self._handler(
                    self._services, scope.get("path_params", {}), body
                )
        except TimeoutError as error:
            raise ApiError(504, f"not done within {limit_s:g} s", code="timeout") from error
        await exchange.whole(status, encode(answer))


def _roles(services: Services) -> RoleCounts:
    return RoleCounts.of(list(services.backend.workers()))


async def get_fleet(services: Services, path: dict[str, str], body: None) -> tuple[int, Fleet]:
    """Every worker in every state."""
    workers = sorted(services.backend.workers(), key=lambda w: w.worker_id)
    return 200, Fleet(
        model=services.renderer.model_name,
        roles=RoleCounts.of(workers),
        workers=[WorkerStatus.of(worker) for worker in workers],
        num_experts=max((len(w.expert_tokens[0]) for w in workers if w.expert_tokens), default=0),
        wanted_workers=services.backend.wanted_workers,
    )


async def get_roles(services: Services, path: dict[str, str], body: None) -> tuple[int, RoleCounts]:
    """How many workers have each role."""
    return 200, _roles(services)


async def put_roles(
    services: Services, path: dict[str, str], body: RoleCounts
) -> tuple[int, Switches]:
    """Switch as few workers as possible to reach these counts; 409 if a switch was rolled back."""
    outcomes = await services.backend.set_roles(body.by_role())
    return _switched(services, outcomes)


async def put_worker_role(
    services: Services, path: dict[str, str], body: RoleRequest
) -> tuple[int, Switches]:
    """Switch one worker; 409 if it was rolled back."""
    worker_id = path["worker_id"]
    known = {worker.worker_id: worker.epoch for worker in services.backend.workers()}
    if worker_id not in known:
        raise ApiError(
            404, f"no worker {worker_id[:200]!r}", code="worker_not_found", param="worker_id"
        )
    if body.epoch not in (None, known[worker_id]):
        raise ApiError(
            409,
            f"epoch: the worker's is {known[worker_id]}, got {body.epoch}: its role was switched"
            " meanwhile",
            code="epoch_changed",
            param="epoch",
        )
    try:
        outcome = await services.backend.switch_role(
            worker_id, body.role, deadline_s=body.deadline_s
        )
    except WorkerLost as error:
        raise ApiError(
            409, f"the worker was lost while it switched: {error}", code="worker_lost"
        ) from error
    return _switched(services, [outcome])


def _switched(services: Services, outcomes: Sequence[SwitchOutcome]) -> tuple[int, Switches]:
    for o in outcomes:
        result = "ok" if o.ok else "rolled_back"
        services.metrics.switches.labels(o.from_role.value, o.to_role.value, result).inc()
        for phase, seconds in (
            ("drain", o.drain_s),
            ("switch", o.switch_s),
            ("verify", o.verify_s),
        ):
            services.metrics.switch_seconds.of(phase).observe(seconds)
    answer = Switches(
        outcomes=[msgspec.convert(o, Switch, from_attributes=True) for o in outcomes],
        roles=_roles(services),
    )
    return (200 if all(o.ok for o in outcomes) else 409), answer


async def post_scale(
    services: Services, path: dict[str, str], body: ScaleRequest
) -> tuple[int, Scaling]:
    """Ask for a number of workers; 202, they come and go later."""
    if body.num_workers < 1:
        raise InvalidRequest("num_workers: at least one worker is needed", "num_workers")
    most = services.settings.max_workers
    if body.num_workers > most:
        wanted = f"num_workers: must be at most {most}, got {body.num_workers}"
        raise InvalidRequest(f"{wanted} (EPIDOTE_GATEWAY_MAX_WORKERS)", "num_workers")
    await services.backend.set_num_workers(body.num_workers)
    return 202, Scaling(num_workers=body.num_workers, num_current=len(services.backend.workers()))


async def put_shed(
    services: Services, path: dict[str, str], body: ShedBody
) -> tuple[int, ShedBody]:
    """Refuse a share of new requests, for a minute unless told again."""
    services.shedding.tell(body.ratio)
    return 200, ShedBody(ratio=services.shedding.ratio)


async def get_conservation(
    services: Services, path: dict[str, str], body: None
) -> tuple[int, Conservation]:
    """Whether every block, row and lease is accounted for; not sound unless all workers say so."""
    found = await services.backend.conservation()
    workers = {worker_id: list(errors) for worker_id, errors in found.items() if errors is not None}
    unanswered = sorted(found.keys() - workers.keys())
    is_sound = bool(workers) and not unanswered and not any(workers.values())
    return 200, Conservation(is_sound=is_sound, workers=workers, unanswered=unanswered)
