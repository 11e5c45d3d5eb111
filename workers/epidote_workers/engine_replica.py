"""This file is about the deployment `Engine`: one Serve replica is one worker.

The worker lives on a loop and thread of its own (its engine on a third): Serve's loop only answers
health checks, routing statistics and admin calls.
"""

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from epidote_core.expert_placement import Placement
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.fleet_view import Orders, Wish
from epidote_workers.loop_thread import LoopThread
from epidote_workers.loopback import keep_replica_on_loopback
from epidote_workers.membership import Membership
from epidote_workers.node_settings import NodeSettings, device_here
from epidote_workers.service_settings import ReplicaSettings

if TYPE_CHECKING:
    from epidote_workers.worker import Worker

logger = logging.getLogger(__name__)

STOP_S = 5.0


class HandleRegister:
    """`membership.Register` over a Serve handle of the deployment `Fleet`."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet

    async def register(
        self, view: WorkerView, *, wish: Wish | None, keeps_role: bool, experts: Placement | None
    ) -> Orders:
        orders: Orders = await self._fleet.register.remote(view, wish, keeps_role, experts)
        return orders

    async def heartbeat(self, view: WorkerView, *, wish: Wish | None) -> Orders | None:
        orders: Orders | None = await self._fleet.heartbeat.remote(view, wish)
        return orders

    async def experts(self) -> Placement | None:
        placement: Placement | None = await self._fleet.experts.remote()
        return placement

    async def leave(self, worker_id: str) -> None:
        await self._fleet.leave.remote(worker_id)

    async def remove(self, worker_id: str) -> None:
        await self._fleet.remove.remote(worker_id)


class EngineReplica:
    """The worker's id is the replica's: a restarted worker is a new one."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ReplicaSettings, fleet: Any
    ) -> None:
        keep_replica_on_loopback()
        self._settings = settings
        self._worker_id: str = serve.get_replica_context().replica_id.unique_id
        self._node_id: str = ray.get_runtime_context().get_node_id()
        self._worker: Worker | None = None
        self._thread = LoopThread("worker")
        self._membership = Membership(HandleRegister(fleet), self._view, place=self._place)
        await self._thread.call(self._start())

    async def _start(self) -> None:
        # Only workers import torch (3 s of CPU, 140 MB): not who merely deploys this class.
        from epidote_engine.settings import EngineConfig
        from epidote_workers.worker import Worker
        from epidote_workers.worker_settings import WorkerSettings

        settings, here = self._settings, NodeSettings.from_env()
        self._role = Role(here.role) if here.role else Role.ALL  # of the view that joins
        self._role = await self._membership.join()
        self._beating = asyncio.create_task(self._membership.run())
        config = EngineConfig(
            model=settings.model,
            role=self._role,
            dtype=settings.dtype,
            device=device_here(settings.device),
            kv_cache_dtype=settings.kv_cache_dtype,
            num_kv_blocks=settings.num_kv_blocks,
            quantization=settings.quantization,
            compile_vision=settings.compile_vision,
            memory_utilization=settings.gpu_memory_utilization,
            device_share=settings.gpu_share,
            max_model_len=settings.max_model_len,
            expert_parallel=settings.expert_parallel,
            num_redundant_experts=settings.num_redundant_experts,
            count_expert_tokens=True,  # nothing to count, nothing done without experts
            worker_id=self._worker_id,
        )
        self._worker = Worker(
            self._worker_id,
            config,
            WorkerSettings(
                socket_dir=Path(here.run_directory or settings.run_directory),
                tcp_host=here.host or settings.tcp_host,
                node_id=here.name,
                kv_transfer_dtype=settings.kv_transfer_dtype,
                tensor_parallel_size=settings.tensor_parallel_size,
            ),
            retire=self._retire,
        )
        await self._worker.start()
        await self._membership.beat()  # routable now, not half a second later

    def _view(self) -> WorkerView:
        """This worker as the register needs it: without the contents of its caches."""
        if self._worker is None:
            return WorkerView(
                worker_id=self._worker_id,
                role=getattr(self, "_role", Role.ALL),
                state=WorkerState.STARTING,
                epoch=0,
                address="",
                node_id=self._node_id,
                pid=os.getpid(),
            )
        # The register knows Ray's node ids: it looks at the pids of its own node.
        return replace(self._worker.view(), node_id=self._node_id)

    def _place(self, placement: Placement) -> bool:
        if self._worker is not None:
            self._worker.seats.want(placement)
        return self._worker is not None

    def _running(self) -> "Worker":
        assert self._worker is not None, "Serve routes only to a replica that has started"
        return self._worker

    # What Serve asks

    def check_health(self) -> None:
        """Raises when the worker can't serve any more: Serve then replaces the replica."""
        if not self._thread.is_alive:
            raise RuntimeError("the worker's thread ended")
        if self._worker is not None and self._worker.failure is not None:
            raise RuntimeError(self._worker.failure)

    def record_routing_stats(self) -> dict[str, Any]:
        view = self._view()
        load = view.load
        return {
            "worker_id": view.worker_id,
            "role": view.role.value,
            "state": view.state.value,
            "epoch": view.epoch,
            "load": load.num_waiting + load.num_running + load.num_encoding,
        }

    async def __del__(self) -> None:
        """Serve stops this replica: hand over, finish what can be finished, stop."""
        await self._thread.call(self._leave())
        await self._thread.stop()

    async def _leave(self) -> None:
        if self._worker is None:
            return
        if await self._membership.leave():
            await self._worker.drain(deadline_s=self._settings.drain_s)
        self._beating.cancel()
        await self._membership.remove()
        async with asyncio.timeout(STOP_S):
            await self._worker.stop()  # streams still open are resumed by their gateways

    async def _retire(self, deadline_s: float) -> None:
        """The node leaves the cluster: as `_leave`, but the process is ended from outside."""
        if await self._membership.leave():
            await self._running().drain(deadline_s=deadline_s)
        self._beating.cancel()
        await self._membership.remove()

    # Admin calls, through the role-aware router: `target` is read there

    async def switch_role(
        self, role: Role, epoch: int, deadline_s: float, target: str = ""
    ) -> SwitchOutcome:
        """Switch; refused (`ok` False) if this worker's epoch is not `epoch`."""
        return await self._thread.call(self._switch(role, epoch, deadline_s))

    async def _switch(self, role: Role, epoch: int, deadline_s: float) -> SwitchOutcome:
        outcome = await self._running().switch_role(
            role, deadline_s=deadline_s, expected_epoch=epoch
        )
        await self._membership.beat()
        return outcome

    async def status(self, target: str = "", role: str = "") -> WorkerView:
        return self._view()

    async def conservation(self, target: str = "", role: str = "") -> list[str]:
        found = await self._thread.call(self._running().conservation())
        return list(found.errors)
