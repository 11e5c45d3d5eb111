"""This file is about a simulated worker: one engine at a time, and a life around it."""

from epidote_core.roles import Role, WorkerState
from epidote_loadgen.simulate.coupled_engine import CoupledEngine
from epidote_loadgen.simulate.decode_engine import DecodeEngine
from epidote_loadgen.simulate.engines import EncodeEngine, PrefillEngine
from epidote_planner.lane import Lane
from epidote_planner.snapshot import WorkerStatus

Engine = EncodeEngine | PrefillEngine | DecodeEngine | CoupledEngine


class SimWorker:
    """Mutable; only the fleet changes it. `next_lane` is where a switch leads, None: removal."""

    __slots__ = ("created_s", "engine", "lane", "leaving", "name", "next_lane", "since_s", "state")

    def __init__(self, name: str, lane: Lane, now_s: float) -> None:
        self.name = name
        self.lane = lane
        self.next_lane: Lane | None = None
        self.engine: Engine | None = None
        self.state = WorkerState.STARTING
        self.since_s = self.created_s = now_s
        self.leaving = False

    @property
    def routable(self) -> bool:
        return self.state is WorkerState.ROUTABLE

    @property
    def role(self) -> Role:
        return self.lane.role

    def status(self) -> WorkerStatus:
        """What an observer reports: the assignment, not the way there."""
        lane = self.next_lane or self.lane
        engine = self.engine
        return WorkerStatus(
            name=self.name,
            role=lane.role,
            group=lane.group,
            state=self.state,
            since_s=self.since_s,
            leaving=self.leaving,
            num_running=engine.num_running if engine else 0,
            num_waiting=engine.num_waiting if engine else 0,
            sample=engine.sample if engine and self.routable else None,
        )
