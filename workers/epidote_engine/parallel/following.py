"""This file is about keeping the ranks' engines in step: one leads, the others do what it does.

The leader's calls are gathered and sent before each step, in order, through a group of CPU
processes. What a call raises it raises on every rank: the leader's caller hears of it.
"""

import pickle
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.roles import Role
from epidote_engine.engine import Engine
from epidote_engine.events import Event
from epidote_engine.sequence import Mode

_Call = tuple[str, tuple[Any, ...]]


class LeadingEngine:
    """Rank 0's engine; its calls are repeated on every other rank, where `follow` runs.

    Prefill and decode apart would need copies between equal ranks of two workers: not done, and
    refused.
    """

    def __init__(self, engine: Engine, calls: dist.ProcessGroup) -> None:
        """`calls` is a gloo group of all ranks."""
        self.engine = engine
        self._group = calls
        self._calls: list[_Call] = []

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        """See `Engine.add`.

        Raises:
            InvalidRequest: also for another mode than GENERATE.
        """
        if mode is not Mode.GENERATE:
            raise InvalidRequest(f"mode: {mode} is not possible with tensor parallelism", "mode")
        self._do("add", request)

    def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._do("abort", request_id)

    def submit_media(self, pixels: MediaPixels) -> None:
        """See `Engine.submit_media`; every rank encodes it."""
        self._do("submit_media", pixels)

    def set_role(self, role: Role) -> None:
        """See `Engine.set_role`."""
        self._do("set_role", role)

    def has_work(self) -> bool:
        """See `Engine.has_work`."""
        return self.engine.has_work()

    def step(self) -> list[Event]:
        """One step on every rank; see `Engine.step`."""
        self._calls.append(("step", ()))
        self._send()
        return self.engine.step()

    def stop(self) -> None:
        """End `follow` on the other ranks."""
        self._calls.append(("stop", ()))
        self._send()

    def _do(self, name: str, *arguments: Any) -> None:
        self._calls.append((name, arguments))
        getattr(self.engine, name)(*arguments)

    def _send(self) -> None:
        data = torch.frombuffer(bytearray(pickle.dumps(self._calls)), dtype=torch.uint8)
        self._calls = []
        dist.broadcast(torch.tensor([len(data)]), 0, group=self._group)
        dist.broadcast(data, 0, group=self._group)


def follow(engine: Engine, calls: dist.ProcessGroup) -> None:
    """Repeat the leader's calls until it stops. Its events are the same and dropped.

    Raises:
        RuntimeError: the leader is gone (from `torch.distributed`).
    """
    while True:
        for name, arguments in _received(calls):
            if name == "stop":
                return
            call: Callable[..., Any] = getattr(engine, name)
            try:
                call(*arguments)
            except EpidoteError:
                continue  # the leader's caller got the same


def _received(group: dist.ProcessGroup) -> list[_Call]:
    size = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(size, 0, group=group)
    data = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, 0, group=group)
    # from our own leader, over a group that only this engine's ranks are in
    calls: list[_Call] = pickle.loads(data.numpy().tobytes())
    return calls
