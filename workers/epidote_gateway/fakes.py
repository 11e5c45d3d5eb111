"""This file is about a pretend fleet for tests, benches and API work, over `fake_model`."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epidote_core.errors import InvalidRequest, WorkerLost
from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.generation import GenerateRequest, MediaPixels, Route, TokenChunk
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_gateway.backend import SwitchOutcome, TokenStream
from epidote_gateway.fake_model import BOS, FakeRenderer, displayable, fake_tokens, interleave

__all__ = ["BOS", "FakeBackend", "FakeRenderer", "displayable", "fake_tokens"]


@dataclass(kw_only=True)
class FakeBackend:
    """Several pretend workers in one process. Fields may be changed while it serves."""

    fleet: dict[str, WorkerView] = field(default_factory=dict)
    block_size: int = 16
    tokens_per_chunk: int = 1
    chunks_per_item: int = 1
    delay_s: float = 0.0  # before every item; 0 still lets other tasks run
    encode_delay_s: float = 0.0
    accept: Callable[[GenerateRequest, Route], None] = lambda request, route: None  # may raise
    die_after: dict[str, int] = field(default_factory=dict)  # worker -> items until it dies
    requests: list[tuple[GenerateRequest, Route]] = field(default_factory=list)
    encoded: list[tuple[str, str, str]] = field(default_factory=list)  # worker, key, request
    closed: list[str] = field(default_factory=list)  # requests closed before their end
    num_open: int = 0
    wanted_workers: int | None = 0

    @classmethod
    def of(cls, roles: Mapping[Role, int], **kwargs: Any) -> "FakeBackend":
        backend = cls(**kwargs)
        for role, count in roles.items():
            for number in range(count):
                backend.put(f"{role.value}-{number}", role)
        backend.wanted_workers = len(backend.fleet)
        return backend

    def put(self, worker_id: str, role: Role, **changes: Any) -> None:
        """Add or replace a worker."""
        defaults: dict[str, Any] = {
            "state": WorkerState.ROUTABLE,
            "epoch": 1,
            "address": f"unix:/{worker_id}",
            "load": WorkerLoad(num_kv_blocks=1000, num_free_kv_blocks=1000, num_media_rows=1000),
        }
        self.fleet[worker_id] = WorkerView(
            worker_id=worker_id, role=role, **{**defaults, **changes}
        )

    def kill(self, worker_id: str) -> None:
        """Like `kill -9`: streams over the worker break, its view is gone a moment later."""
        self.fleet.pop(worker_id, None)

    def workers(self) -> Sequence[WorkerView]:
        return tuple(self.fleet.values())

    def _check_alive(self, worker_id: str) -> None:
        if worker_id not in self.fleet:
            raise WorkerLost(f"worker {worker_id} is gone", worker_id=worker_id)

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        return self._generate(request, route)

    async def _generate(
        self, request: GenerateRequest, route: Route
    ) -> AsyncGenerator[list[TokenChunk], None]:
        self.requests.append((request, route))
        self.accept(request, route)
        self.num_open += 1
        finished = False
        try:
            unfinished = {choice.index for choice in request.choices}
            used = {route.prefill, route.decode, *(worker for _, worker in route.encode)}
            waiting: list[TokenChunk] = []
            for chunk in interleave(request, route, self.tokens_per_chunk):
                waiting.append(chunk)
                if chunk.finish_reason is not None:
                    unfinished.discard(chunk.index)
                if unfinished and len(waiting) < self.chunks_per_item:
                    continue
                await asyncio.sleep(self.delay_s)
                for worker_id in sorted(used):
                    self._spend_life(worker_id)
                    self._check_alive(worker_id)
                finished = not unfinished
                yield waiting
                waiting = []
        finally:
            self.num_open -= 1
            if not finished:
                self.closed.append(request.request_id)

    def _spend_life(self, worker_id: str) -> None:
        if worker_id in self.die_after:
            self.die_after[worker_id] -= 1
            if self.die_after[worker_id] < 0:
                del self.die_after[worker_id]
                self.kill(worker_id)

    async def encode(self, worker_id: str, pixels: MediaPixels, *, request_id: str) -> None:
        await asyncio.sleep(self.encode_delay_s)
        self._spend_life(worker_id)
        self._check_alive(worker_id)
        self.encoded.append((worker_id, pixels.key, request_id))
        view = self.fleet[worker_id]
        self.fleet[worker_id] = replace(view, media_keys=view.media_keys | {pixels.key})

    async def set_roles(self, roles: Mapping[Role, int]) -> Sequence[SwitchOutcome]:
        if sum(roles.values()) != len(self.fleet):
            raise InvalidRequest(f"roles: must add up to {len(self.fleet)} workers", "roles")
        missing = Counter(roles)
        missing.subtract(view.role for view in self.fleet.values())
        outcomes = []
        for view in list(self.fleet.values()):
            wanted = next((role for role, count in missing.items() if count > 0), None)
            if wanted is not None and missing[view.role] < 0:
                missing[view.role] += 1
                missing[wanted] -= 1
                outcomes.append(await self.switch_role(view.worker_id, wanted, deadline_s=1.0))
        return outcomes

    async def switch_role(self, worker_id: str, role: Role, *, deadline_s: float) -> SwitchOutcome:
        if worker_id not in self.fleet:
            raise InvalidRequest(f"worker_id: no worker {worker_id!r}", "worker_id")
        before = self.fleet[worker_id]
        after = replace(before, role=role, epoch=before.epoch + 1)
        self.fleet[worker_id] = replace(before, state=WorkerState.SWITCHING)
        await asyncio.sleep(self.delay_s)
        self.fleet[worker_id] = after
        return SwitchOutcome(
            worker_id=worker_id, from_role=before.role, to_role=role, ok=True, epoch=after.epoch
        )

    async def set_num_workers(self, num_workers: int) -> None:
        self.wanted_workers = num_workers

    async def place_experts(self, placement: Placement) -> None:
        """Workers are told, and there it ends: `put` says what became of it."""
        target = placement_digest(placement)
        for view in list(self.fleet.values()):
            if view.experts is not None:
                told = replace(view.experts, target=target)
                self.fleet[view.worker_id] = replace(view, experts=told)

    async def conservation(self) -> Mapping[str, Sequence[str] | None]:
        return {worker_id: [] for worker_id in self.fleet}
