"""This file is about what the executor can do to a fleet, whoever runs it.

`kubernetes_hands` does it to pods and gateways, `local_hands` to a local `epidote serve`.
Every call is idempotent: done twice, it changes nothing the second time.
"""

from collections import Counter
from typing import Protocol

from epidote_core.errors import EpidoteError
from epidote_operator.status.fleet import FleetWorker, SwitchIntent
from epidote_planner.decision import AdviseGateway, MoveExperts
from epidote_planner.lane import Lane


class CannotAct(EpidoteError):
    """A step failed; nothing after it was done, and the next tick looks again."""


class Hands(Protocol):
    """Every method raises `CannotAct`, or an error of the API server, if it could not be done."""

    async def mark_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        """Write the intent down durably and take the worker off the routes."""
        ...

    async def ask_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        """Have the worker drain, switch and verify. Returns when asked, not when it is done."""
        ...

    def refusal(self, worker: FleetWorker) -> str | None:
        """Why the worker undid the switch it was asked for; None: it has not, as far as known."""
        ...

    async def settle_switch(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        """The worker is in `lane` now: write that down, drop the intent, route to it again."""
        ...

    async def assign(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        """A worker that has not started yet shall come up in `lane`."""
        ...

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        """Start workers; returns how many were asked for (fewer if the budget has no room)."""
        ...

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        """Take it away: drained first, or at once if it never served."""
        ...

    async def match_size(self, assigned: Counter[Lane], known: int | None) -> None:
        """Tell the fleet's own register how many workers there shall be, in which roles.

        `known`: how many it says that there shall be; None: it doesn't.
        """
        ...

    async def advise(self, advice: AdviseGateway) -> None:
        """Ask the gateways to relax their cache, use lossy options, or shed."""
        ...

    async def move_experts(self, action: MoveExperts) -> None:
        """Have every worker take a new placement of experts. Returns when they are told."""
        ...
