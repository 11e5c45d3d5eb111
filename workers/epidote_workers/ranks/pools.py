"""This file is about the pools of a worker's further ranks, as its stages and its peers see them.

pool    lent to peers              filled from a peer's
KV      "kv/1", "kv/2", …          pool of the same rank: each holds its own heads
media   rank 0's alone: all equal  "media", once for every rank
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epidote_workers.messages import Pools
from epidote_workers.ranks.leader import RankPools, Ranks
from epidote_workers.transfer.cuda_ipc import decode, map_pool
from epidote_workers.transfer.descriptor_socket import Descriptors
from epidote_workers.transfer.layout import KV_POOL, MEDIA_POOL, PoolLayout, as_units
from epidote_workers.transfer.transport import LocalPool

_OF_RANK = "/"


@dataclass(frozen=True, kw_only=True)
class RankPool:
    """One follower's pools. `handle` is where peers find its KV in GPU memory, or ""."""

    kv: LocalPool
    media: LocalPool
    handle: str


def rank_pools(ranks: Ranks, kv: PoolLayout, media: PoolLayout) -> list[RankPool]:
    """Of every rank from 1 on; `kv` and `media` are rank 0's layouts.

    Raises:
        NoDescriptor: a follower's GPU is not visible to this process.
    """
    return [
        RankPool(
            kv=_reached(pools, KV_POOL, replace(kv, name=_name(rank))),
            media=_reached(pools, MEDIA_POOL, media),
            handle=pools.handles.get(KV_POOL, ""),
        )
        for rank, pools in enumerate(ranks.pools, start=1)
    ]


def _name(rank: int) -> str:
    return f"{KV_POOL}{_OF_RANK}{rank}"


def _reached(pools: RankPools, name: str, layout: PoolLayout) -> LocalPool:
    if handle := pools.handles.get(name):
        return LocalPool(map_pool(decode(handle, layout), layout), layout)
    if (tensor := pools.tensors.get(name)) is None:  # an empty pool: nothing to reach
        import torch

        tensor = torch.zeros(layout.shape, dtype=layout.torch_dtype)
    return LocalPool(as_units(tensor, layout), layout)


class RankDescriptors:
    """The descriptors of all pools of a worker; `own` knows those of rank 0."""

    def __init__(self, own: Descriptors, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks

    def descriptor(self, name: str) -> int | None:
        kind, _, rank = name.partition(_OF_RANK)
        if not rank:
            return self._own.descriptor(name)
        if not rank.isdigit() or not 0 < int(rank) <= len(self._ranks.pools):
            return None  # it comes from a socket
        return self._ranks.descriptor(int(rank), kind)


def with_ranks(described: Pools, ranks: Sequence[RankPool]) -> Pools:
    """What a peer is told of rank 0's pools, and of the further ranks' KV.

    Handles are the followers' own: what this process has mapped it can't lend again.
    """
    handles = tuple((pool.kv.layout.name, pool.handle) for pool in ranks if pool.handle)
    return replace(
        described,
        layouts=(*described.layouts, *(pool.kv.layout for pool in ranks)),
        cuda_handles=(*described.cuda_handles, *handles),
    )
