"""This file is about the bodies of the endpoints that watch and change the fleet."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView

NumWorkers = Annotated[int, Meta(ge=0, le=10_000)]


class RoleCounts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many workers have each role."""

    encode: NumWorkers = 0
    prefill: NumWorkers = 0
    decode: NumWorkers = 0
    all: NumWorkers = 0

    @classmethod
    def of(cls, workers: list[WorkerView]) -> "RoleCounts":
        counts = {role.value: 0 for role in Role}
        for worker in workers:
            counts[worker.role.value] += worker.state is not WorkerState.FAILED
        return cls(**counts)

    def by_role(self) -> dict[Role, int]:
        return {role: getattr(self, role.value) for role in Role}


class WorkerStatus(msgspec.Struct, kw_only=True):
    worker_id: str
    role: Role
    state: WorkerState
    epoch: int
    address: str
    node_id: str
    pid: int
    load: WorkerLoad
    num_cached_blocks: int
    num_cached_media: int

    @classmethod
    def of(cls, view: WorkerView) -> "WorkerStatus":
        return cls(
            worker_id=view.worker_id,
            role=view.role,
            state=view.state,
            epoch=view.epoch,
            address=view.address,
            node_id=view.node_id,
            pid=view.pid,
            load=view.load,
            num_cached_blocks=len(view.block_hashes),
            num_cached_media=len(view.media_keys),
        )


class Fleet(msgspec.Struct, kw_only=True):
    model: str
    roles: RoleCounts
    workers: list[WorkerStatus]
    num_experts: int  # in each layer that has some; 0: none
    wanted_workers: int | None  # that the register was asked for last; null: there is none


class RoleRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    role: Role
    deadline_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0  # s to drain before rolling back
    epoch: Annotated[int, Meta(ge=0)] | None = None  # refuse if the worker's is another by now


class Switch(msgspec.Struct, kw_only=True):
    """One worker's switch, as `backend.SwitchOutcome`."""

    worker_id: str
    from_role: Role
    to_role: Role
    ok: bool
    epoch: int
    drain_s: float
    switch_s: float
    verify_s: float
    message: str


class Switches(msgspec.Struct, kw_only=True):
    outcomes: list[Switch]
    roles: RoleCounts


class ScaleRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    num_workers: NumWorkers


class ShedBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Share of new requests that are refused with 429; forgotten after a minute."""

    ratio: Annotated[float, Meta(ge=0, le=1)]


class Scaling(msgspec.Struct, kw_only=True):
    num_workers: int
    num_current: int


class Conservation(msgspec.Struct, kw_only=True):
    is_sound: bool
    workers: dict[str, list[str]]
    unanswered: list[str]


class Status(msgspec.Struct, kw_only=True):
    status: str
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
