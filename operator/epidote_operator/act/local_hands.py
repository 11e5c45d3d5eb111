"""This file is about acting on a local `epidote serve`: through its gateway alone.

Intents live in this process. If it is killed, the switch goes on without it, and the next one
takes workers as they are.
"""

import asyncio
import logging
from collections import Counter

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.status.fleet import FleetWorker, SwitchIntent
from epidote_planner.decision import AdviseGateway, MoveExperts
from epidote_planner.lane import Lane

logger = logging.getLogger(__name__)


class LocalHands:
    """The `Hands` of local mode. Which worker leaves is Ray Serve's choice, not the planner's."""

    def __init__(self, gateway: GatewayClient) -> None:
        self._gateway = gateway
        self.intents: dict[str, SwitchIntent] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}
        self._wants_size = False

    async def aclose(self) -> None:
        """Forget calls under way; the switches themselves go on."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def mark_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        self.intents[worker.name] = intent

    async def ask_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        if worker.name in self._asking:
            return
        task = asyncio.create_task(self._ask(worker.worker_id, intent))
        self._asking[worker.name] = task
        task.add_done_callback(lambda _: self._asking.pop(worker.name, None))

    async def _ask(self, worker_id: str, intent: SwitchIntent) -> None:
        left_s = max(1.0, intent.deadline_s - intent.started_s)
        try:
            answer = await self._gateway.switch_role(
                worker_id, intent.target.role, deadline_s=left_s
            )
        except EpidoteError as error:  # the next tick sees what became of it
            logger.warning("switch unanswered", extra={"worker": worker_id, "error": str(error)})
            return
        if not answer.ok and answer.was_tried:
            self._refused[worker_id] = answer.message

    def refusal(self, worker: FleetWorker) -> str | None:
        return self._refused.get(worker.name)

    async def settle_switch(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self.intents.pop(worker.name, None)
        self._refused.pop(worker.name, None)

    async def assign(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        """The register gives a newcomer the role that `match_size` leaves for it."""
        self._wants_size = True

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        self._wants_size = True
        return count

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        self.intents.pop(worker.name, None)
        self._wants_size = True

    async def match_size(self, assigned: Counter[Lane], known: int | None) -> None:
        """Only after a change of ours: a worker that restarts is the register's business."""
        if not self._wants_size:
            return
        counts: Counter[Role] = Counter()
        for lane, count in assigned.items():
            counts[lane.role] += count
        await self._gateway.set_num_workers(counts.total())
        await self._gateway.set_roles(counts)  # newcomers take what is missing
        self._wants_size = False

    async def advise(self, advice: AdviseGateway) -> None:
        """A local gateway follows its own settings."""

    async def move_experts(self, action: MoveExperts) -> None:
        await self._gateway.place_experts(action.move.placement)
