"""This file is about the register of workers: who is there, who should do what, and making it so.

No Ray here: `fleet_replica` wraps it in a deployment and injects what reaches outside. Its memory,
the `Wish`, travels with the workers' heartbeats: a restarted register learns it from them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.assignment import (
    Switch,
    check_counts,
    plan,
    role_for_newcomer,
    safe_batches,
)
from epidote_workers.fleet_view import FleetView, Orders, Wish
from epidote_workers.roster import Roster
from epidote_workers.switch_call import SwitchCall, perform

logger = logging.getLogger(__name__)

TICK_S = 0.25  # a look at the pids of this node is cheap: kill -9 is seen within this
GATHER_S = 0.15  # victims of one scale-down say goodbye within this
ACQUAINT_S = 1.5  # a new register waits for everybody's next heartbeat before it changes anything
RETRY_S = 5.0  # after a switch that was rolled back
SWITCH_DEADLINE_S = 30.0  # drain, switch, verify


class Fleet:
    """The register. All methods belong to one event loop."""

    def __init__(
        self,
        wish: Wish,
        *,
        switch: SwitchCall,
        scale: Callable[[int], Awaitable[None]],
        is_alive: Callable[[WorkerView], bool | None],
        now: Callable[[], float],
        first_version: int = 1,
        acquaint_s: float = ACQUAINT_S,
    ) -> None:
        """`is_alive` answers None where it can't know; `scale` sets the number of replicas.

        `first_version` is higher than every version of an earlier life.
        """
        self._wish = wish
        self._switch_call, self._scale, self._is_alive, self._now = switch, scale, is_alive, now
        self._roster = Roster(now, first_version)
        self._first_version = first_version
        self._experts: Placement | None = None  # that the wish has the digest of
        self._is_closing = False
        self._was_complete = False  # since this register started
        self._settled_s = now()
        self._is_unsettled = False
        self._acquainted_s = now() + acquaint_s
        self._switching = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None

    # What workers say

    def register(
        self,
        view: WorkerView,
        *,
        wish: Wish | None,
        keeps_role: bool,
        experts: Placement | None = None,
    ) -> Orders:
        """Add a worker; `keeps_role` if an earlier life of this register gave it one.

        Else `view.role` is what it would like to be (ALL: anything), and becomes if one is missing.
        `experts`: the placement that it was told, if any.
        """
        self._learn(wish)
        if experts is not None and placement_digest(experts) == self._wish.experts:
            self._experts = experts
        role = view.role
        if not keeps_role:
            staying, wish = self._roster.staying(), self._wish
            role = role_for_newcomer(staying, wish.counts, wish.stages, prefers=view.role)
        self._roster.put(replace(view, role=role))
        logger.info("worker registered", extra={"worker": view.worker_id, "role": role})
        return self._orders(role)

    def heartbeat(self, view: WorkerView, *, wish: Wish | None) -> Orders | None:
        """Note that a worker lives, and how; None: unknown, it should register again."""
        known = self._roster.get(view.worker_id)
        if known is None:
            return None
        self._learn(wish)
        if view.epoch < known.epoch:  # sent before a switch that this register has seen the end of
            view = replace(view, role=known.role, state=known.state, epoch=known.epoch)
        self._roster.put(view)
        if view.state is WorkerState.ROUTABLE and known.state is WorkerState.STARTING:
            if len(self._roster.staying()) >= self._wish.num_workers:
                self._was_complete = True
            self._settle_soon()
        return self._orders(view.role)

    def experts(self) -> Placement | None:
        """Where experts shall lie; None: no wish, or it is not known in this life yet."""
        return self._experts

    async def leave(self, worker_id: str) -> None:
        """A worker is about to stop: others take over its stage first, then it gets no more work.

        Returns when the worker may drain. Unknown worker: at once.
        """
        if self._is_closing or not self._roster.say_goodbye(worker_id):
            return
        await asyncio.sleep(GATHER_S)
        await self._settle()
        self._roster.drain(worker_id)

    def remove(self, worker_id: str) -> None:
        """Forget a worker that stopped."""
        if self._roster.remove(worker_id):
            self._settle_soon()

    # What gateways and operators say

    def report_lost(self, worker_id: str) -> None:
        """A gateway could not reach a worker; believed unless its process is seen alive."""
        view = self._roster.get(worker_id)
        if view is not None and self._is_alive(view) is not True:
            logger.warning("worker lost", extra={"worker": worker_id, "by": "gateway"})
            self.remove(worker_id)

    def view(self) -> FleetView:
        roster = self._roster
        return FleetView(version=roster.version, workers=roster.all(), wish=self._wish)

    async def watch(self, version: int, timeout_s: float) -> FleetView:
        """The register as soon as it differs from `version`, or after `timeout_s` as it is."""
        await self._roster.differs_from(version, timeout_s)
        return self.view()

    async def set_roles(self, counts: Mapping[Role, int]) -> list[SwitchOutcome]:
        """Switch as few workers as possible to `counts`; again with the same counts: none.

        A worker that is missing (restarting) will come up in the role left for it.

        Raises:
            InvalidRequest: the counts don't add up or leave a stage to nobody.
        """
        await self._acquainted()
        check_counts(counts, self._wish.num_workers, self._wish.stages)
        self._learn(replace(self._wish, shape=dict(counts), version=self._next_version()))
        return await self._settle()

    async def switch_role(self, worker_id: str, role: Role, *, deadline_s: float) -> SwitchOutcome:
        """Switch one worker and wish for the counts that result.

        Raises:
            InvalidRequest: no such worker.
        """
        await self._acquainted()
        view = self._roster.get(worker_id)
        if view is None:
            raise InvalidRequest(f"worker_id: no worker {worker_id!r}", "worker_id")
        async with self._switching:
            switch = Switch(worker_id=worker_id, from_role=view.role, to_role=role)
            outcome = await self._switch_one(switch, deadline_s)
            if outcome.ok and outcome.from_role is not role:
                counts = self._wish.counts
                counts[outcome.from_role] = max(0, counts.get(outcome.from_role, 0) - 1)
                counts[role] = counts.get(role, 0) + 1
                self._learn(replace(self._wish, shape=counts, version=self._next_version()))
        return outcome

    async def set_num_workers(self, num_workers: int) -> None:
        """Wish for more or fewer workers in the same proportions; returns when asked for.

        Raises:
            InvalidRequest: fewer than one.
        """
        if num_workers < 1:
            raise InvalidRequest(f"workers: must be at least 1, got {num_workers}", "num_workers")
        await self._acquainted()
        wish = replace(self._wish, num_workers=num_workers, version=self._next_version())
        self._learn(wish)
        await self._scale(num_workers)

    async def place_experts(self, placement: Placement) -> None:
        """Wish for this placement; workers hear of it with their next heartbeat, new ones, too.

        The caller has checked it against what workers say of their slots.
        """
        await self._acquainted()
        self._experts = placement
        if (digest := placement_digest(placement)) != self._wish.experts:
            self._learn(replace(self._wish, experts=digest, version=self._next_version()))

    def close(self) -> None:
        """Everything ends: no more switching, workers stop without handing over."""
        self._is_closing = True

    # Keeping it true

    async def run(self) -> None:
        """Remove the dead and keep every stage covered, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """One look at everybody; separate from `run` for tests with a fake clock."""
        silent = self._roster.silent()
        dead = [v.worker_id for v in self._roster.all() if self._is_alive(v) is False]
        for worker_id in {*silent, *dead}:
            logger.warning(
                "worker lost", extra={"worker": worker_id, "seen_dead": worker_id in dead}
            )
            self.remove(worker_id)
        if self._now() - self._settled_s > RETRY_S and self._plan():
            self._settle_soon()

    def _settle_soon(self) -> None:
        self._is_unsettled = True
        if not self._is_closing and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle_quietly())

    async def _settle_quietly(self) -> None:
        try:
            while self._is_unsettled:  # set again by what happens meanwhile
                self._is_unsettled = False
                await self._settle()
        except Exception:  # a later tick tries again
            logger.exception("settling failed")

    async def _settle(self) -> list[SwitchOutcome]:
        """Switch towards the wish, or to cover bare stages while workers are missing.

        Stops at the first batch with a failure: a later tick looks again.
        """
        outcomes: list[SwitchOutcome] = []
        self._settled_s = self._now()
        async with self._switching:
            if self._is_closing:
                return []
            for batch in safe_batches(self._roster.staying(), self._plan(), self._wish.stages):
                done = await asyncio.gather(
                    *(self._switch_one(switch, SWITCH_DEADLINE_S) for switch in batch)
                )
                outcomes.extend(done)
                if not all(outcome.ok for outcome in done):
                    break
        return outcomes

    def _plan(self) -> tuple[Switch, ...]:
        wish = self._wish
        return plan(self._roster.staying(), wish.counts, wish.stages, heals=self._was_complete)

    async def _switch_one(self, switch: Switch, deadline_s: float) -> SwitchOutcome:
        return await perform(
            switch,
            self._roster,
            call=self._switch_call,
            lost=self.report_lost,
            deadline_s=deadline_s,
        )

    def _learn(self, wish: Wish | None) -> None:
        if wish is not None and wish.version > self._wish.version:
            self._wish = wish
            self._roster.bump()

    async def _acquainted(self) -> None:
        """Wait out the first moments of this life, in which workers tell what an earlier one knew.

        A change before that would rest on the wish of the service's start.
        """
        if (left_s := self._acquainted_s - self._now()) > 0:
            await asyncio.sleep(left_s)

    def _next_version(self) -> int:
        return max(self._wish.version, self._first_version) + 1

    def _orders(self, role: Role) -> Orders:
        return Orders(role=role, wish=self._wish, is_closing=self._is_closing)
