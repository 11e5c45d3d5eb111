"""This file is about the deployment `Fleet`: the register in one Serve replica."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve

from epidote_core.errors import WorkerLost
from epidote_core.expert_placement import Placement
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.fleet import Fleet
from epidote_workers.fleet_view import FleetView, Orders, Wish
from epidote_workers.loopback import keep_replica_on_loopback
from epidote_workers.scaling import scale_by_controller
from epidote_workers.service_settings import ENGINE, ServiceSettings

ANSWER_MARGIN_S = 5.0  # beyond a worker's own deadline, for the call itself
WATCH_S = 10.0  # a watcher asks again after this: a lost answer costs no more


class FleetReplica:
    """Methods run on the replica's event loop, which the register belongs to."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, wish: Wish, settings: ServiceSettings
    ) -> None:
        keep_replica_on_loopback()
        self._settings = settings
        self._app = serve.get_replica_context().app_name
        self._node_id = ray.get_runtime_context().get_node_id()
        self._fleet = Fleet(
            wish,
            switch=self._switch,
            scale=self._scale,
            is_alive=self._is_alive,
            now=time.monotonic,
            first_version=time.time_ns(),  # never equal to a version of an earlier life
        )
        self._keeper = asyncio.create_task(self._fleet.run())

    # for workers

    async def register(
        self, view: WorkerView, wish: Wish | None, keeps_role: bool, experts: Placement | None
    ) -> Orders:
        return self._fleet.register(view, wish=wish, keeps_role=keeps_role, experts=experts)

    async def heartbeat(self, view: WorkerView, wish: Wish | None) -> Orders | None:
        return self._fleet.heartbeat(view, wish=wish)

    async def experts(self) -> Placement | None:
        return self._fleet.experts()

    async def leave(self, worker_id: str) -> None:
        await self._fleet.leave(worker_id)

    async def remove(self, worker_id: str) -> None:
        self._fleet.remove(worker_id)

    # for gateways and operators

    async def settings(self) -> ServiceSettings:
        """What the service was started with: for gateways that join it."""
        return self._settings

    async def view(self) -> FleetView:
        return self._fleet.view()

    async def watch(self, version: int) -> FleetView:
        return await self._fleet.watch(version, WATCH_S)

    async def report_lost(self, worker_id: str) -> None:
        self._fleet.report_lost(worker_id)

    async def set_roles(self, counts: Mapping[Role, int]) -> list[SwitchOutcome]:
        return await self._fleet.set_roles(counts)

    async def switch_role(self, worker_id: str, role: Role, deadline_s: float) -> SwitchOutcome:
        return await self._fleet.switch_role(worker_id, role, deadline_s=deadline_s)

    async def set_num_workers(self, num_workers: int) -> None:
        await self._fleet.set_num_workers(num_workers)

    async def place_experts(self, placement: Placement) -> None:
        await self._fleet.place_experts(placement)

    async def close(self) -> None:
        self._fleet.close()

    def check_health(self) -> None:
        """Raises if the keeper ended: Serve then restarts this replica."""
        if self._keeper.done():
            raise RuntimeError(f"the register's keeper ended: {self._keeper!r}")

    async def __del__(self) -> None:
        self._keeper.cancel()

    # what the register reaches outside

    async def _switch(self, worker: WorkerView, role: Role, *, deadline_s: float) -> SwitchOutcome:
        engine: Any = serve.get_deployment_handle(ENGINE, app_name=self._app)
        try:
            async with asyncio.timeout(deadline_s + ANSWER_MARGIN_S):
                outcome: SwitchOutcome = await engine.switch_role.remote(
                    role=role,
                    epoch=worker.epoch,
                    deadline_s=deadline_s,
                    target=worker.worker_id,
                )
        except TimeoutError:
            raise
        except Exception as error:  # Ray's kinds of a dead or dying replica
            raise WorkerLost(f"{worker.worker_id}: {error}", worker_id=worker.worker_id) from error
        return outcome

    async def _scale(self, num_workers: int) -> None:
        await scale_by_controller(self._app, ENGINE, num_workers)

    def _is_alive(self, view: WorkerView) -> bool | None:
        if view.node_id != self._node_id or not view.pid:
            return None
        try:
            os.kill(view.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return None
        return True
