"""This file is about a worker: one engine, one role at a time, the stages it serves."""

import asyncio

from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView
from epidote_engine.settings import EngineConfig
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.lifecycle import DrainPolicy
from epidote_workers.messages import Conservation
from epidote_workers.worker_settings import WorkerSettings


class Worker:
    """Serves `generate`, `prefill`, `encode`, `fetch_media`, `status` and administration.

    All methods belong to the event loop that `start` ran on.
    """

    def __init__(self, worker_id: str, config: EngineConfig, settings: WorkerSettings) -> None:
        """Cheap: nothing is loaded, nothing listens before `start`."""
        raise NotImplementedError

    async def listen(self) -> None:
        """Open the sockets: `address` is known, `view()` and the status stream say STARTING."""
        raise NotImplementedError

    async def start(self, role: Role | None = None) -> None:
        """Listen if that is still to do, load the engine in its thread, verify, become routable.

        `role` instead of the configuration's. Raises what loading raised; the worker is then
        FAILED. Whatever happens, `stop` must follow in the end.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Drop every stream (clients see the connection end), stop the engine, free the pools."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Where clients connect; known after `start` began to listen, "" before."""
        raise NotImplementedError

    def view(self) -> WorkerView:
        """The worker now, from memory. Without cache names (`block_hashes`, `media_keys`)."""
        raise NotImplementedError

    @property
    def failure(self) -> str | None:
        """Why the worker is unhealthy (engine thread died or hangs), None while it is well."""
        raise NotImplementedError

    @property
    def failed(self) -> "asyncio.Future[str]":
        """Done, with the reason, as soon as the worker fails for good."""
        raise NotImplementedError

    async def switch_role(
        self,
        role: Role,
        *,
        deadline_s: float,
        drain: DrainPolicy = DrainPolicy.MIGRATE,
        grace_s: float = 0.25,
        expected_epoch: int | None = None,
    ) -> SwitchOutcome:
        """Drain, switch, verify; never raises for a switch that did not work: `ok` is False.

        Not drained after `deadline_s`, or the new role fails its check: back in the old role.
        Another switch under way, or another epoch than expected: refused, nothing happens.
        """
        raise NotImplementedError

    async def drain(self, *, deadline_s: float, grace_s: float = 0.25) -> None:
        """Take no more work, for ever; before `stop`.

        Finishes prefill and encode work; decode streams are handed back after `grace_s` and go on
        elsewhere. Returns when nothing is left, at the latest after `deadline_s`.
        """
        raise NotImplementedError

    async def conservation(self) -> Conservation:
        """What the engine's and this worker's bookkeeping find wrong."""
        raise NotImplementedError
