"""This file is about the processes of a worker's further ranks: start, pools, end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from epidote_core.errors import InvalidRequest
from epidote_engine.parallel.lost import NOTICE_S, RankLost
from epidote_engine.settings import EngineConfig
from epidote_workers.engine_protocol import Allocate, EngineFactory, EngineLike
from epidote_workers.ranks.control import Control, Here, Order, PoolMemory, Ready
from epidote_workers.ranks.shared_memory import mapped, new_memory, num_bytes, seal

if TYPE_CHECKING:
    from epidote_engine.parallel.following import LeadingEngine

START_S = 300.0  # importing torch takes seconds of a core that others want as well
LOAD_S = 1800.0  # reading slices of a large model from a slow disk
END_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RankPools:
    """A follower's pools as this process reaches them: tensors (CPU) or CUDA handles, by name."""

    tensors: dict[str, torch.Tensor]
    handles: dict[str, str]


@dataclass(kw_only=True)
class _Follower:
    rank: int
    process: "subprocess.Popen[bytes]"
    control: Control
    tensors: dict[str, torch.Tensor]
    descriptors: dict[str, int]


class Ranks:
    """The further ranks of one worker. `close` must be called, also after a failed start."""

    def __init__(self, size: int, directory: Path, name: str, alone: EngineFactory) -> None:
        """`directory` is private to this user; `name` is unique in it.

        `alone` makes the engine of a worker that has no further ranks.
        """
        self._size, self._alone = size, alone
        self._meeting = directory / f"{name}.ranks"
        self._followers: list[_Follower] = []
        self._pools: list[RankPools] = []
        self._leading: LeadingEngine | None = None
        self._is_closed = False

    @property
    def pools(self) -> Sequence[RankPools]:
        """Of the ranks from 1 on; known when the engine is made."""
        return self._pools

    def descriptor(self, rank: int, name: str) -> int | None:
        """Of a follower's pool in memory that peers may map, still owned here."""
        return self._followers[rank - 1].descriptors.get(name)

    def lost(self, wait_s: float = 0.0) -> str:
        """Why a rank is gone, "" while all are there; waits up to `wait_s` for one to go.

        From any thread.
        """
        deadline_s = time.monotonic() + wait_s
        while not self._is_closed:
            for follower in self._followers:
                if (code := follower.process.poll()) is not None:
                    return (
                        f"rank {follower.rank} of {self._size} (pid {follower.process.pid}) ended "
                        f"with {_named(code)}: its part of the model is gone"
                    )
            if time.monotonic() >= deadline_s:
                return ""
            time.sleep(0.02)
        return ""

    def make_engine(self, config: EngineConfig, allocate: Allocate) -> EngineLike:
        """Start the other ranks and make this one's engine; an `EngineFactory`.

        Raises:
            InvalidRequest: fewer GPUs than ranks, or a model that can't be cut so.
            RankLost: a process did not start, or failed to load its part.
        """
        if self._size == 1:
            return self._alone(config, allocate)
        from epidote_engine.engine import Engine
        from epidote_engine.parallel.following import LeadingEngine
        from epidote_engine.parallel.shards import Shards
        from epidote_workers.ranks.group import join

        on_gpu = config.device.startswith("cuda")
        if on_gpu and (found := torch.cuda.device_count()) < self._size:
            raise InvalidRequest(
                f"tensor_parallel_size: {self._size} needs as many GPUs, found {found}",
                "tensor_parallel_size",
            )
        for rank in range(1, self._size):
            self._followers.append(_start(rank))
        for follower in self._followers:
            follower.control.receive(Here, START_S)
        for follower in self._followers:
            follower.control.send(
                Order(
                    config=replace(config, device=_device(config.device, follower.rank)),
                    rank=follower.rank,
                    size=self._size,
                    meeting=str(self._meeting),
                    num_threads=torch.get_num_threads(),
                )
            )
        config = replace(config, device=_device(config.device, 0))
        try:
            group = join(config.device, 0, self._size, str(self._meeting))
            if on_gpu:
                engine = Engine(config, shards=Shards())
            else:
                engine = Engine(config, allocate=partial(self._allocate, allocate), shards=Shards())
        except RuntimeError as error:
            if reason := self.lost(NOTICE_S):
                raise RankLost(reason) from error
            raise
        for follower in self._followers:
            ready, _ = follower.control.receive(Ready, LOAD_S)
            for descriptor in follower.descriptors.values():
                seal(descriptor)
            self._pools.append(RankPools(tensors=follower.tensors, handles=dict(ready.handles)))
        self._meeting.unlink(missing_ok=True)  # only now has everybody found everybody
        self._leading = LeadingEngine(engine, group.calls, lost=self.lost)
        return self._leading

    def _allocate(
        self, own: Allocate, name: str, shape: Sequence[int], dtype: torch.dtype
    ) -> torch.Tensor:
        """Every rank's pool of this name; returns this one's."""
        size = num_bytes(shape, dtype)
        for follower in self._followers if size else ():
            descriptor = new_memory(name, size)
            follower.descriptors[name] = descriptor
            follower.tensors[name] = mapped(descriptor, shape, dtype)
            follower.control.send(PoolMemory(name=name, num_bytes=size), descriptor)
        return own(name, shape, dtype)

    def close(self) -> None:
        """End every process. No step may be under way. Idempotent."""
        self._is_closed = True
        self._meeting.unlink(missing_ok=True)
        for follower in self._followers:
            assert follower.process.stdin is not None
            with contextlib.suppress(OSError):
                follower.process.stdin.close()  # it ends by that
        deadline_s = time.monotonic() + END_S
        for follower in self._followers:
            try:
                follower.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                follower.process.kill()
                follower.process.wait()
            follower.control.close()
            for descriptor in follower.descriptors.values():
                os.close(descriptor)
            follower.descriptors.clear()
        if self._leading is not None:
            self._leading.let_go()
            self._leading = None
        if self._followers:
            from epidote_workers.ranks.group import leave

            leave()
        self._followers = []


def _start(rank: int) -> _Follower:
    control, theirs = Control.pair(f"rank {rank}")
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "epidote_workers.ranks.follower", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
    return _Follower(rank=rank, process=process, control=control, tensors={}, descriptors={})


def _device(device: str, rank: int) -> str:
    return f"cuda:{rank}" if device.startswith("cuda") else device


def _named(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
