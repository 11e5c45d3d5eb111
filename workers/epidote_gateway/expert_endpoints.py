"""This file is about seeing and changing where experts lie: `/admin/experts`.

One placement holds for all workers of the model: each has every expert, in slots of its own ranks.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from epidote_core.expert_placement import (
    Placement,
    check_placement,
    imbalance,
    placement_digest,
)
from epidote_core.roles import WorkerState
from epidote_core.worker_view import ExpertsView, WorkerView
from epidote_gateway.api_errors import ApiError
from epidote_gateway.services import Services

MAX_PLACEMENT_BYTES = 2 << 20  # 100 layers of 4,000 slots


class WorkerExperts(msgspec.Struct, kw_only=True):
    """One worker whose experts lie in slots. Placements are named by their digest."""

    worker_id: str
    ranks: int
    placement: str  # in force
    target: str  # that it was told last; "": none
    is_moving: bool
    refusal: str  # why its engine won't have the target
    imbalance: float  # of all tokens counted so far, had they been placed as they are now
    num_moves: int  # since it started
    slot_s: float  # seconds that each slot of its last move took; 0: none yet

    @classmethod
    def of(cls, worker_id: str, seen: ExpertsView, skew: float) -> "WorkerExperts":
        return cls(
            worker_id=worker_id,
            ranks=seen.ranks,
            placement=seen.digest,
            target=seen.target,
            is_moving=seen.is_moving,
            refusal=seen.refusal,
            imbalance=skew,
            num_moves=seen.num_moves,
            slot_s=seen.slot_s,
        )


class Experts(msgspec.Struct, kw_only=True):
    """What experts computed, and where they lie on workers that hold whole ones.

    `tokens` is [layer][expert], of all workers that live: they grow while the same workers live,
    and shrink when one leaves. `placements` has [layer][slot] → expert by digest. [] and {}: the
    model has no experts, or they are cut.
    """

    tokens: list[list[int]]
    is_moving: bool
    workers: list[WorkerExperts]
    placements: dict[str, Placement]


class ExpertPlacement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where experts shall lie, on every worker: [layer][slot] → expert."""

    placement: tuple[tuple[Annotated[int, Meta(ge=0)], ...], ...]


class Placing(msgspec.Struct, kw_only=True):
    """Workers are told; `GET /admin/experts` says how far they are."""

    placement: str  # its digest
    num_workers: int


async def get_experts(services: Services, path: dict[str, str], body: None) -> tuple[int, Experts]:
    """How many tokens each expert has computed, and where experts lie."""
    workers = sorted(services.backend.workers(), key=lambda w: w.worker_id)
    tokens, seen = fleet_expert_tokens(workers), experts_of(workers)
    skews = skew_by_placement(tokens, seen.values())
    return 200, Experts(
        tokens=tokens,
        is_moving=any(view.is_moving for view in seen.values()),
        workers=[
            WorkerExperts.of(worker_id, view, skews[view.digest])
            for worker_id, view in seen.items()
        ],
        placements={view.digest: view.placement for view in seen.values()},
    )


async def put_experts(
    services: Services, path: dict[str, str], body: ExpertPlacement
) -> tuple[int, Placing]:
    """Have every worker move its experts; 202, requests go on meanwhile. Idempotent.

    400 names the field that is wrong; 404 for a model without experts, 409 where workers can't
    move them.
    """
    workers = services.backend.workers()
    seen = experts_of(workers)
    if not seen and not fleet_expert_tokens(workers):
        raise ApiError(404, "no worker's model has experts", code="no_experts")
    if not seen:
        raise ApiError(
            409,
            "every expert is cut over all ranks of its worker: start workers with "
            "--enable-expert-parallel",
            code="no_expert_parallelism",
        )
    sizes = {
        (len(view.placement), len({*view.placement[0]}), len(view.placement[0]))
        for view in seen.values()
    }
    if len(sizes) > 1:
        raise ApiError(409, "workers have different numbers of slots", code="workers_differ")
    num_layers, num_experts, num_slots = sizes.pop()
    check_placement(
        body.placement, num_layers=num_layers, num_experts=num_experts, num_slots=num_slots
    )
    await services.backend.place_experts(body.placement)
    return 202, Placing(placement=placement_digest(body.placement), num_workers=len(seen))


def fleet_expert_tokens(workers: Sequence[WorkerView]) -> list[list[int]]:
    """[layer][expert] over all workers that live; [] for a model without experts."""
    tables = [
        w.expert_tokens for w in workers if w.expert_tokens and w.state is not WorkerState.FAILED
    ]
    return [[sum(one) for one in zip(*layers, strict=True)] for layers in zip(*tables, strict=True)]


def experts_of(workers: Sequence[WorkerView]) -> dict[str, ExpertsView]:
    """By worker, of those that live and hold whole experts."""
    return {
        w.worker_id: w.experts
        for w in workers
        if w.experts is not None and w.experts.placement and w.state is not WorkerState.FAILED
    }


def skew_by_placement(
    tokens: Sequence[Sequence[int]], seen: Iterable[ExpertsView]
) -> dict[str, float]:
    """Imbalance of `tokens` under each placement that is in force somewhere, by digest."""
    placed = {view.digest: view for view in seen}
    return {
        digest: imbalance(tokens, view.placement, view.ranks)
        if len(tokens) == len(view.placement)
        else 1.0  # nothing was counted yet
        for digest, view in placed.items()
    }
