"""This file is about what a worker tells peers of its pools: every way to read them."""

import asyncio
from collections.abc import Mapping

from epidote_workers.messages import Pools
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import export
from epidote_workers.transfer.descriptor_socket import Descriptors
from epidote_workers.transfer.nixl_agent import encode, open_agent
from epidote_workers.transfer.nixl_transport import NixlTransport
from epidote_workers.transfer.ray_objects import has_ray
from epidote_workers.transfer.staging import Staging
from epidote_workers.transfer.transport import LocalPool, Transport


class PoolLending:
    """The pools of one worker, as peers hear of them."""

    def __init__(self, node_id: str, pools: Mapping[str, LocalPool]) -> None:
        """`pools` may fill later."""
        self._node_id, self._pools = node_id, pools
        self._nixl: NixlTransport | None = None
        self._cuda_handles: dict[str, str] = {}  # of each pool, by its layout's name
        self._nixl_handles: tuple[tuple[str, str], ...] = ()

    async def open_nixl(
        self, worker_id: str, copies: CopyThread, otherwise: Transport
    ) -> NixlTransport | None:
        """Register the pools with NIXL; None: it is not installed, or has no use for them.

        `otherwise` is how a peer's pool is read where NIXL fails. `close` must follow.
        """
        agent = await asyncio.to_thread(open_agent, worker_id)
        if agent is None:
            return None
        handles = []
        for name, pool in self._pools.items():
            handle = await asyncio.to_thread(agent.lend, pool.units)
            if handle is not None:
                handles.append((name, handle))
        if not handles:
            return None
        # all registered: the last metadata tells of every pool
        self._nixl_handles = tuple((name, encode(agent.described(h))) for name, h in handles)
        device = next(iter(self._pools.values())).units.device
        self._nixl = NixlTransport(agent, Staging(agent, device), copies, otherwise)
        return self._nixl

    def describe(self, descriptor_path: str, allocator: Descriptors) -> Pools:
        """What a peer is told when it asks. `descriptor_path` is where descriptors are had."""
        pools = self._pools.values()
        for pool in pools:
            if pool.layout.name not in self._cuda_handles:
                self._cuda_handles[pool.layout.name] = export(pool.units)
        is_mappable = all(
            allocator.descriptor(pool.layout.name) is not None
            for pool in pools
            if pool.layout.num_bytes
        )
        return Pools(
            node_id=self._node_id,
            descriptor_path=descriptor_path if is_mappable else "",
            layouts=tuple(pool.layout for pool in pools),
            ray=has_ray(),
            cuda_handles=tuple(self._cuda_handles.items()),
            nixl_handles=self._nixl_handles,
        )

    def close(self) -> None:
        """Nothing is read by NIXL any more. Idempotent."""
        if self._nixl is not None:
            self._nixl.close()
            self._nixl = None
