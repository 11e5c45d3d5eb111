"""This file is about what the stages of one worker share."""

import itertools
from dataclasses import dataclass, field, replace

from epidote_core.generation import GenerateRequest
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.engine_thread import EngineThread
from epidote_workers.inbox import Inboxes
from epidote_workers.kv_agreement import KvScales, has_codes
from epidote_workers.peers import Peers
from epidote_workers.ranks.leader import Ranks
from epidote_workers.ranks.pools import RankPool, rank_pools
from epidote_workers.stage_gate import StageGate
from epidote_workers.transfer.layout import (
    KV_POOL,
    MEDIA_POOL,
    as_units,
    kv_layout,
    media_layout,
)
from epidote_workers.transfer.quantized import codes_for, warm_up
from epidote_workers.transfer.side_stream import beside_the_model
from epidote_workers.transfer.transport import LocalPool
from epidote_workers.worker_settings import WorkerSettings


@dataclass(kw_only=True)
class Parts:
    """One worker's organs. `pools` fill when the engine is made."""

    worker_id: str
    settings: WorkerSettings
    engine: EngineThread
    gate: StageGate
    inboxes: Inboxes
    peers: Peers
    computes_on_cpu: bool = True
    pools: dict[str, LocalPool] = field(default_factory=dict)
    ranks: list[RankPool] = field(default_factory=list)  # of a model that is cut: from rank 1 on
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def take_pools(self, engine: EngineLike, ranks: Ranks, fingerprint: str) -> None:
        """Know the pools of an engine that is made, and those of its model's further ranks."""
        kv, media = engine.kv_pool.tensor, engine.media_pool.tensor
        for tensor, layout in (
            (kv, kv_layout(kv, fingerprint)),
            (media, media_layout(media, fingerprint)),
        ):
            self.pools[layout.name] = LocalPool(as_units(tensor, layout), layout)
        self.ranks = rank_pools(ranks, self.kv.layout, self.media.layout)

    def check_codes(self) -> None:
        """See to it that KV can travel as is wished; blocks while a GPU's kernels are compiled.

        Raises:
            InvalidRequest: the pool holds codes already. Told now, not by the first copy.
        """
        codes = codes_for(self.settings.kv_transfer_dtype, self.kv.layout)
        for pool in self.kv_of_ranks if codes else ():
            if pool.units.is_cuda:
                with beside_the_model(pool.units.device):
                    warm_up(pool, codes)

    @property
    def kv(self) -> LocalPool:
        return self.pools[KV_POOL]

    @property
    def media(self) -> LocalPool:
        return self.pools[MEDIA_POOL]

    @property
    def kv_of_ranks(self) -> list[LocalPool]:
        """What a prompt's KV is copied into: every rank's pool, from a peer's of the same rank."""
        return [self.kv, *(rank.kv for rank in self.ranks)]

    @property
    def media_of_ranks(self) -> list[LocalPool]:
        """What an embedding is copied into: every rank's pool."""
        return [self.media, *(rank.media for rank in self.ranks)]

    def lent(self, name: str) -> LocalPool:
        """The pool that a peer asks for by its layout's name.

        Raises:
            KeyError: there is none.
        """
        return (self.pools | {rank.kv.layout.name: rank.kv for rank in self.ranks})[name]

    async def kv_scales(self) -> KvScales:
        """What KV codes count for here, by rank; () for KV in the model's own number type."""
        if not has_codes(self.kv.layout):
            return ()
        return await self.engine.call(lambda engine: engine.kv_scales())

    def own(self, request: GenerateRequest) -> GenerateRequest:
        """The request under an id of this worker's own: a client's retry may meet its first try."""
        return replace(request, request_id=f"{request.request_id}/{next(self._numbers)}")

    def owner(self, purpose: str) -> str:
        """A fresh name to hold something by."""
        return f"{purpose}/{next(self._numbers)}"
