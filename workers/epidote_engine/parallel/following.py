"""This file is about keeping the ranks' engines in step: one leads, the others do what it does.

The leader's calls are gathered and sent before each step, in order, through a group of CPU
processes. What a call raises it raises on every rank: the leader's caller hears of it.

Peers copy out of and into the pools of every rank while only the leader tells them when. So

| what the leader says   | why it holds for the other ranks as well                              |
| ---------------------- | --------------------------------------------------------------------- |
| a layer's KV is there  | a sum over the ranks lies behind it (`decoder.ParallelDecoderLM`)      |
| blocks are reserved    | the ranks wait for each other behind a step that reserved some        |
| a medium is ready      | as well: nobody writes its rows any more                              |

Experts that move (`expert_places`) are read at each rank's own pace. Before a step the ranks tell
each other how far they are, and all take the steps of the move that all have read.
"""

import pickle
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from epidote_core.errors import EpidoteError
from epidote_core.expert_placement import Placement
from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_engine.engine import Engine
from epidote_engine.events import (
    CacheChanges,
    Event,
    FirstToken,
    KvReady,
    KvReserved,
    MediaFailed,
    MediaReady,
    MediaRows,
)
from epidote_engine.parallel.lost import NOTICE_S, RankLost
from epidote_engine.pools import KvPool, MediaPool
from epidote_engine.sequence import Mode

_Call = tuple[str, tuple[Any, ...], dict[str, Any]]
_KvScales = tuple[tuple[float, ...], ...]
_INLINE_BYTES = 1024  # the first broadcast: a step without news fits, and needs no second one
_SIZE_BYTES = 8
_READING_S = 0.002  # a step that computes nothing waits so long for experts to be read


class LeadingEngine:
    """Rank 0's engine; what changes it is repeated on every other rank, where `follow` runs.

    Has `Engine`'s methods; pools, load and bookkeeping are this rank's (the others' are equal).
    """

    def __init__(
        self,
        engine: Engine,
        calls: dist.ProcessGroup,
        *,
        lost: Callable[[float], str] | None = None,
    ) -> None:
        """`calls` is a gloo group of all ranks, with a timeout as long as the engine may be idle.

        `lost` says why a rank is gone, "" while none is; it may wait some seconds for that.
        """
        self.engine = engine
        self._group, self._lost = calls, lost
        self._calls: list[_Call] = []

    @property
    def kv_pool(self) -> KvPool:
        return self.engine.kv_pool

    @property
    def media_pool(self) -> MediaPool:
        return self.engine.media_pool

    @property
    def on_layer(self) -> Callable[[list[KvReady]], None] | None:
        return self.engine.on_layer

    @on_layer.setter
    def on_layer(self, tell: Callable[[list[KvReady]], None] | None) -> None:
        self.engine.on_layer = tell

    # -- repeated before the next step --------------------------------------------------------

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        self._do("add", request, mode=mode)

    def abort(self, request_id: str) -> None:
        self._do("abort", request_id)

    def release_kv(self, request_id: str) -> None:
        self._do("release_kv", request_id)

    def commit_kv(self, request_id: str, first: FirstToken) -> None:
        self._do("commit_kv", request_id, first)

    def submit_media(self, pixels: MediaPixels) -> None:
        """See `Engine.submit_media`; every rank encodes it for itself."""
        self._do("submit_media", pixels)

    def reserve_media(self, key: str, num_tokens: int) -> MediaRows | None:
        """See `Engine.reserve_media`; the rows are to be filled on every rank."""
        return self._do_rows("reserve_media", key, num_tokens)

    def commit_media(self, key: str) -> None:
        self._do("commit_media", key)

    def cancel_media(self, key: str) -> None:
        self._do("cancel_media", key)

    def acquire_media(self, key: str, owner: str) -> MediaRows | None:
        return self._do_rows("acquire_media", key, owner)

    def release_media(self, key: str, owner: str) -> None:
        self._do("release_media", key, owner)

    def place_experts(self, placement: Placement) -> None:
        """See `Engine.place_experts`."""
        self._do("place_experts", placement)

    # -- repeated at once ---------------------------------------------------------------------

    def set_role(self, role: Role) -> None:
        """See `Engine.set_role`. The ranks do it together: what is loaded then may be tried out."""
        self._calls.append(("set_role", (role,), {}))
        self._send()
        self.engine.set_role(role)

    def step(self) -> list[Event]:
        """One step on every rank; see `Engine.step`.

        Raises:
            RankLost: a rank is gone.
        """
        try:
            self._calls.append(("step", (), {}))
            self._send()
            _advance_experts(self.engine, self._group)
            events = self.engine.step()
            _meet(events, self._group)
        except RuntimeError as error:
            self._check(error, NOTICE_S)
            raise
        return events

    def kv_scales(self) -> _KvScales:
        """See `Engine.kv_scales`: of every rank, in order."""
        self._calls.append(("kv_scales", (), {}))
        self._send()
        return _all_scales(self.engine, self._group)

    def stop(self) -> None:
        """End `follow` on the other ranks."""
        self._calls.append(("stop", (), {}))
        self._send()

    def let_go(self) -> None:
        """Forget the group, which is about to end; nothing may be called any more.

        A process that ends while it holds one is aborted by gloo.
        """
        del self._group

    # -- of this rank -------------------------------------------------------------------------

    def has_work(self) -> bool:
        """See `Engine.has_work`.

        Raises:
            RankLost: a rank is gone, though nothing is to be computed now.
        """
        self._check(None, 0.0)
        return self.engine.has_work()

    def is_drained(self) -> bool:
        return self.engine.is_drained()

    def load(self) -> WorkerLoad:
        return self.engine.load()

    def take_cache_changes(self) -> CacheChanges:
        return self.engine.take_cache_changes()

    def conservation_errors(self) -> list[str]:
        return self.engine.conservation_errors()

    def expert_tokens(self) -> tuple[tuple[int, ...], ...] | None:
        return self.engine.expert_tokens()

    def expert_placement(self) -> Placement | None:
        return self.engine.expert_placement()

    def _do(self, name: str, *arguments: Any, **named: Any) -> Any:
        self._calls.append((name, arguments, named))
        return getattr(self.engine, name)(*arguments, **named)

    def _do_rows(self, name: str, *arguments: Any) -> MediaRows | None:
        rows: MediaRows | None = self._do(name, *arguments)
        if rows is None:
            self._calls.pop()  # it changed nothing, and is asked again and again
        return rows

    def _check(self, error: Exception | None, wait_s: float) -> None:
        if self._lost is not None and (reason := self._lost(wait_s)):
            raise RankLost(reason) from error

    def _send(self) -> None:
        data = pickle.dumps(self._calls)
        self._calls = []
        first = torch.zeros(_INLINE_BYTES, dtype=torch.uint8)
        fits = _SIZE_BYTES + len(data) <= _INLINE_BYTES
        head = len(data).to_bytes(_SIZE_BYTES, "little") + (data if fits else b"")
        first[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        dist.broadcast(first, 0, group=self._group)
        if not fits:
            rest = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.broadcast(rest, 0, group=self._group)


def follow(engine: Engine, calls: dist.ProcessGroup) -> None:
    """Repeat the leader's calls until it stops. Its events are the same and dropped.

    Raises:
        RuntimeError: the leader is gone (from `torch.distributed`).
    """
    engine.on_layer = _tell_nobody
    while True:
        for name, arguments, named in _received(calls):
            match name:
                case "stop":
                    return
                case "step":
                    _advance_experts(engine, calls)
                    _meet(engine.step(), calls)
                    engine.take_cache_changes()  # nobody asks for them here
                case "kv_scales":
                    _all_scales(engine, calls)
                case _:
                    call: Callable[..., Any] = getattr(engine, name)
                    try:
                        call(*arguments, **named)
                    except EpidoteError:
                        continue  # the leader's caller got the same


def _tell_nobody(spans: list[KvReady]) -> None:
    """The leader tells of every rank's layers; with it the ranks take the same steps."""


def _meet(events: list[Event], group: dist.ProcessGroup) -> None:
    """Wait for the other ranks where a peer may now touch their pools.

    Raises:
        RuntimeError: something happened on one rank alone (memory ran out in an encoder): from
            there on they would decide differently.
    """
    told = [
        event.request_id if isinstance(event, KvReserved) else (type(event).__name__, event.key)
        for event in events
        if isinstance(event, KvReserved | MediaReady | MediaFailed)
    ]
    if told:
        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, told, group=group)
        if any(other != told for other in found):
            raise RuntimeError(f"the ranks of one model disagree: {found}")


def _advance_experts(engine: Engine, group: dist.ProcessGroup) -> None:
    """Before a step: move the experts that have been read on every rank, on all of them at once."""
    places = engine.expert_places
    if places is None or not places.is_moving:
        return
    ready = torch.tensor([places.num_ready(0.0 if engine.load().num_running else _READING_S)])
    dist.all_reduce(ready, dist.ReduceOp.MIN, group=group)
    places.advance(int(ready))


def _all_scales(engine: Engine, group: dist.ProcessGroup) -> _KvScales:
    found: list[_KvScales] = [()] * dist.get_world_size(group)
    dist.all_gather_object(found, engine.kv_scales(), group=group)
    return tuple(scales for of_rank in found for scales in of_rank)


def _received(group: dist.ProcessGroup) -> list[_Call]:
    first = torch.zeros(_INLINE_BYTES, dtype=torch.uint8)
    dist.broadcast(first, 0, group=group)
    head = first.numpy().tobytes()
    size = int.from_bytes(head[:_SIZE_BYTES], "little")
    data = head[_SIZE_BYTES : _SIZE_BYTES + size]
    if _SIZE_BYTES + size > _INLINE_BYTES:
        rest = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(rest, 0, group=group)
        data = rest.numpy().tobytes()
    # from our own leader, over a group that only this engine's ranks are in
    calls: list[_Call] = pickle.loads(data)
    return calls
