"""This file is about the gateway's fleet: streams by `FleetClient`, decisions by the register."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from epidote_core.errors import EpidoteError, InvalidRequest, Overloaded
from epidote_core.expert_placement import Placement
from epidote_core.generation import GenerateRequest, MediaPixels, Route
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome, TokenStream
from epidote_workers.client import FleetClient
from epidote_workers.fleet_view import FleetView

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0
WATCH_TIMEOUT_S = 20.0  # twice what the register waits before it answers anyway
RETRY_S = 0.5  # the register restarts: workers serve on meanwhile
ROLES_TIMEOUT_S = 120.0  # several drains, one after the other


class ServeBackend:
    """The gateway's `Backend` protocol. All methods belong to one event loop."""

    def __init__(self, fleet: Any) -> None:
        """`fleet` is a Serve handle of the deployment `Fleet`."""
        self._fleet = fleet
        self._client = FleetClient(on_lost=self._on_lost)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted_workers: int | None = None

    async def start(self) -> None:
        """Follow the register in the background; returns at once."""
        await self._client.start()
        self._spawn(self._follow())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.stop()

    @property
    def block_size(self) -> int:
        return self._client.block_size

    @property
    def wanted_workers(self) -> int | None:
        return self._wanted_workers

    def workers(self) -> Sequence[WorkerView]:
        return self._client.workers()

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        return self._client.generate(request, route)

    async def encode(self, worker_id: str, pixels: MediaPixels, *, request_id: str) -> None:
        await self._client.encode(worker_id, pixels, request_id=request_id)

    async def conservation(self) -> Mapping[str, Sequence[str] | None]:
        return await self._client.conservation()

    async def set_roles(self, roles: Mapping[Role, int]) -> Sequence[SwitchOutcome]:
        counts = {role: number for role, number in roles.items() if number}
        outcomes: list[SwitchOutcome] = await self._ask("set_roles", ROLES_TIMEOUT_S, counts)
        await self._refresh()
        return outcomes

    async def switch_role(self, worker_id: str, role: Role, *, deadline_s: float) -> SwitchOutcome:
        limit_s = deadline_s + CALL_TIMEOUT_S
        outcome: SwitchOutcome = await self._ask(
            "switch_role", limit_s, worker_id, role, deadline_s
        )
        await self._refresh()
        return outcome

    async def set_num_workers(self, num_workers: int) -> None:
        await self._ask("set_num_workers", 2 * CALL_TIMEOUT_S, num_workers)

    async def place_experts(self, placement: Placement) -> None:
        await self._ask("place_experts", CALL_TIMEOUT_S, placement)

    async def _ask(self, method: str, limit_s: float, *arguments: Any) -> Any:
        """A call of the register; its errors come back as they were raised there."""
        try:
            async with asyncio.timeout(limit_s):
                return await getattr(self._fleet, method).remote(*arguments)
        except TimeoutError as error:
            raise Overloaded(
                f"the register did not answer {method} in {limit_s:g} s", retry_after_s=RETRY_S
            ) from error
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a replica raised
            if isinstance(cause, InvalidRequest):
                raise InvalidRequest(str(cause), cause.field) from error
            if isinstance(cause, EpidoteError):
                raise cause from error
            raise Overloaded(f"{method}: {error}", retry_after_s=RETRY_S) from error

    async def _refresh(self) -> None:
        """See what was just changed before answering, rather than with the next watch."""
        self._learn(await self._ask("view", CALL_TIMEOUT_S))

    def _learn(self, view: FleetView) -> None:
        self._wanted_workers = view.wish.num_workers
        self._client.update_members(view.workers)

    async def _follow(self) -> None:
        version = 0
        while True:
            try:
                async with asyncio.timeout(WATCH_TIMEOUT_S):
                    view: FleetView = await self._fleet.watch.remote(version)
            except Exception as error:  # the register restarts; known workers serve on
                logger.warning("register not reached", extra={"error": repr(error)})
                await asyncio.sleep(RETRY_S)
                continue
            if view.version != version:
                version = view.version
                self._learn(view)

    def _on_lost(self, worker_id: str) -> None:
        self._spawn(self._report(worker_id))

    async def _report(self, worker_id: str) -> None:
        with contextlib.suppress(EpidoteError):  # missed heartbeats say the same, later
            await self._ask("report_lost", CALL_TIMEOUT_S, worker_id)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
