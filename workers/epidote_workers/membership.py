"""This file is about a worker's side of the register: joining, heartbeats, leaving.

The register may be away (restarting) at any time: a worker then serves on, and registers again
with the role it has.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView
from epidote_workers.fleet_view import Orders, Wish

logger = logging.getLogger(__name__)

HEARTBEAT_S = 0.5  # costs the register about 2 ms each
CALL_TIMEOUT_S = 5.0
JOIN_TIMEOUT_S = 60.0  # the register's process may still be starting
LEAVE_TIMEOUT_S = 12.0  # others take over the stage meanwhile


class Register(Protocol):
    """The register as a worker calls it; any exception: it can't be reached now."""

    async def register(
        self, view: WorkerView, *, wish: Wish | None, keeps_role: bool, experts: Placement | None
    ) -> Orders: ...
    async def heartbeat(self, view: WorkerView, *, wish: Wish | None) -> Orders | None: ...
    async def experts(self) -> Placement | None: ...
    async def leave(self, worker_id: str) -> None: ...
    async def remove(self, worker_id: str) -> None: ...


class Membership:
    """One worker's membership; `view` reads the worker as it is now.

    `place` hears where experts shall lie, and answers False if it is too early to be told.
    """

    def __init__(
        self,
        register: Register,
        view: Callable[[], WorkerView],
        *,
        place: Callable[[Placement], bool] = lambda placement: True,
    ) -> None:
        self._register, self._view, self._place = register, view, place
        self._wish: Wish | None = None
        self._experts: tuple[str, Placement | None] = ("", None)  # that `place` has heard
        self._is_closing = False

    async def join(self) -> Role:
        """Register a new worker; returns the role to start in.

        Raises:
            TimeoutError: the register did not answer.
        """
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            orders = await self._register.register(
                self._view(), wish=None, keeps_role=False, experts=None
            )
        self._note(orders)
        return orders.role

    async def run(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(HEARTBEAT_S)

    async def beat(self) -> None:
        """One heartbeat, with a new registration where the register asks for it."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                view = self._view()
                orders = await self._register.heartbeat(view, wish=self._wish)
                if orders is None:
                    view = self._view()
                    orders = await self._register.register(
                        view, wish=self._wish, keeps_role=True, experts=self._experts[1]
                    )
                    logger.info("registered again", extra={"worker": view.worker_id})
                await self._follow_experts(orders.wish)
        except Exception as error:  # the register restarts; the next beat tries again
            logger.warning("heartbeat unanswered", extra={"error": repr(error)})
        else:
            self._note(orders)

    async def leave(self) -> bool:
        """Let others take over; True: drain now, False: everything ends, just stop."""
        if self._is_closing:
            return False
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._register.leave(self._view().worker_id)
        except Exception as error:  # leaves anyway: its streams are resumed elsewhere
            logger.warning("left without goodbye", extra={"error": repr(error)})
        return not self._is_closing

    async def remove(self) -> None:
        """The worker has stopped: forget it at once rather than after missed heartbeats."""
        if self._is_closing:
            return
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._register.remove(self._view().worker_id)
        except Exception as error:  # the heartbeats' end says the same, later
            logger.warning("removal unanswered", extra={"error": repr(error)})

    async def _follow_experts(self, wish: Wish) -> None:
        """A placement is large: it is asked for once, and not in every heartbeat."""
        if wish.experts in ("", self._experts[0]):
            return
        placement = await self._register.experts()
        if placement is not None and self._place(placement):
            self._experts = placement_digest(placement), placement

    def _note(self, orders: Orders) -> None:
        self._wish = orders.wish
        self._is_closing = orders.is_closing
