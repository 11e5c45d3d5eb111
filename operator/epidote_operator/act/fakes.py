"""This file is about pretend hands: a fleet in memory on which every step takes effect at once."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count as count_up

from epidote_core.roles import WorkerState
from epidote_operator.act.hands import CannotAct
from epidote_operator.status.fleet import Fleet, FleetWorker, SwitchIntent
from epidote_planner.decision import AdviseGateway, MoveExperts
from epidote_planner.lane import Lane


@dataclass
class PretendHands:
    """`calls` lists what was done; `broken` names methods that fail."""

    workers: dict[str, FleetWorker] = field(default_factory=dict)
    room: int = 1000
    calls: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    refusals: dict[str, str] = field(default_factory=dict)

    def fleet(self, at_s: float) -> Fleet:
        return Fleet(at_s=at_s, workers=tuple(self.workers.values()))

    async def mark_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        self._note("mark_switch", worker.name)
        self._change(worker, intent=intent, is_labelled=False)

    async def ask_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        self._note("ask_switch", worker.name)
        self._change(worker, said=intent.target, epoch=intent.epoch + 1)

    def refusal(self, worker: FleetWorker) -> str | None:
        return self.refusals.get(worker.name)

    async def settle_switch(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self._note("settle_switch", f"{worker.name} {lane}")
        self._change(worker, lane=lane, intent=None, is_labelled=True, since_s=now_s)

    async def assign(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self._note("assign", f"{worker.name} {lane}")
        self._change(worker, lane=lane)

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        added = min(count, self.room)
        self._note("add_workers", f"{added} {lane}")
        self.room -= added
        for _ in range(added):
            names = (f"new-{number}" for number in count_up())
            name = next(name for name in names if name not in self.workers)
            self.workers[name] = FleetWorker(
                name=name, lane=lane, state=WorkerState.STARTING, since_s=now_s
            )
        return added

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        self._note("remove_worker", f"{worker.name} {'drain' if drain else 'now'}")
        self._change(worker, is_leaving=True)

    async def match_size(self, assigned: Counter[Lane], known: int | None) -> None:
        self._note("match_size", str(assigned.total()))

    async def advise(self, advice: AdviseGateway) -> None:
        self._note("advise", f"{advice.shed_ratio:g}")

    async def move_experts(self, action: MoveExperts) -> None:
        self._note("move_experts", action.move.name)

    def _note(self, method: str, what: str) -> None:
        self.calls.append(f"{method} {what}")
        if method in self.broken:
            raise CannotAct(f"{method} is broken")

    def _change(self, worker: FleetWorker, **changes: object) -> None:
        self.workers[worker.name] = replace(self.workers[worker.name], **changes)  # type: ignore[arg-type]
