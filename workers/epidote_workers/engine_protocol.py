"""This file is about what a worker asks of an engine: docs/seams.md section 1, as a type.

Implemented by `epidote_engine.engine.Engine` and `fakes.FakeEngine`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_engine.events import CacheChanges, Event, FirstToken, KvReady, MediaRows
from epidote_engine.sequence import Mode
from epidote_engine.settings import EngineConfig


class Allocate(Protocol):
    """Where a pool lives; the tensor holds zeros."""

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor: ...


class Pool(Protocol):
    """KV: [layers, 2, num_blocks, block_size, kv_heads, head_dim]; media: [num_rows, width]."""

    @property
    def tensor(self) -> torch.Tensor: ...


class EngineLike(Protocol):
    """Synchronous; every method is called in one thread."""

    on_layer: Callable[[list[KvReady]], None] | None

    @property
    def kv_pool(self) -> Pool: ...
    @property
    def media_pool(self) -> Pool: ...

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None: ...
    def abort(self, request_id: str) -> None: ...
    def release_kv(self, request_id: str) -> None: ...
    def commit_kv(self, request_id: str, first: FirstToken) -> None: ...

    def submit_media(self, pixels: MediaPixels) -> None: ...
    def reserve_media(self, key: str, num_tokens: int) -> MediaRows | None: ...
    def commit_media(self, key: str) -> None: ...
    def cancel_media(self, key: str) -> None: ...
    def acquire_media(self, key: str, owner: str) -> MediaRows | None: ...
    def release_media(self, key: str, owner: str) -> None: ...

    def has_work(self) -> bool: ...
    def step(self) -> list[Event]: ...

    def set_role(self, role: Role) -> None: ...
    def is_drained(self) -> bool: ...
    def load(self) -> WorkerLoad: ...
    def take_cache_changes(self) -> CacheChanges: ...
    def conservation_errors(self) -> list[str]: ...


EngineFactory = Callable[[EngineConfig, Allocate], EngineLike]


def real_engine(config: EngineConfig, allocate: Allocate) -> EngineLike:
    """The engine itself; loads its model. Pools of another device than the CPU are its own."""
    from epidote_engine.engine import Engine

    return Engine(config, allocate=allocate) if config.device == "cpu" else Engine(config)
