"""This file is about the fleet as one tick sees it: workers, their assignments, switches under way.

A worker's *assignment* is durable (a pod's annotation), and so is the intent to switch it: an
operator that is killed at any moment finds both again, beside what the worker itself says.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_planner.lane import Lane
from epidote_planner.snapshot import WorkerStatus


@dataclass(frozen=True, kw_only=True)
class SwitchIntent:
    """One role switch under way. Times are Unix seconds.

    `epoch` is the worker's before the switch: a higher one means that it has happened.
    """

    source: Lane
    target: Lane
    epoch: int
    started_s: float
    deadline_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source.key,
            "target": self.target.key,
            "epoch": self.epoch,
            "startedAt": self.started_s,
            "deadline": self.deadline_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SwitchIntent":
        """Raises KeyError, TypeError or ValueError for what `to_json` never wrote."""
        return cls(
            source=Lane.parse(data["source"]),
            target=Lane.parse(data["target"]),
            epoch=int(data["epoch"]),
            started_s=float(data["startedAt"]),
            deadline_s=float(data["deadline"]),
        )


@dataclass(frozen=True, kw_only=True)
class Unplaced:
    """A pod that the scheduler has no node for, since when (Unix seconds), and its words."""

    since_s: float
    why: str

    @property
    def lacks_room(self) -> bool:
        """Whether it could have a node if others left; else no node is of the kind it asks for."""
        return "Insufficient " in self.why or "Too many pods" in self.why


@dataclass(frozen=True, kw_only=True)
class FleetWorker:
    """One worker: where it belongs, what it says of itself, what is being done with it.

    `name` is what plans call it: the pod's name, or the worker's id where there are no pods.
    `worker_id` is what the gateway calls it, "" before the gateway knows it. `lane` is where it
    is: what it says of itself, or its assignment before it speaks and while it switches. `said` is
    the role it reports, None before it reports one. `adrift_since_s`: it has been between two roles
    since then without an intent of ours; somebody else asked, or the intent was lost.
    `redundant_since_s`: it serves every stage, and since then others have served all but its own.
    """

    name: str
    lane: Lane
    state: WorkerState
    since_s: float
    worker_id: str = ""
    said: Lane | None = None
    epoch: int = 0
    intent: SwitchIntent | None = None
    is_leaving: bool = False
    is_labelled: bool = True  # its pod's label and assignment say its lane
    adrift_since_s: float | None = None
    redundant_since_s: float | None = None
    is_ready: bool = True  # its pod's readiness probe agrees that it serves
    is_outdated: bool = False  # made from an older revision of the spec
    has_lost_head: bool = False  # it joined a head that is no more, and counts as leaving
    unplaced: Unplaced | None = None  # its pod has no node
    num_running: int = 0
    num_waiting: int = 0

    @property
    def serves(self) -> bool:
        """Whether it takes requests in its lane now."""
        return self.state is WorkerState.ROUTABLE and self.intent is None and not self.is_leaving

    @property
    def stands_in(self) -> bool:
        """Whether it serves every stage, though it belongs to one: others are missing.

        The register has a lone survivor do that, and takes it back. `lane` is where it belongs.
        """
        said = self.said
        return said is not None and said.role is Role.ALL and self.lane.role is not Role.ALL

    def serves_role(self, role: Role) -> bool:
        """Whether it takes requests of that role now."""
        return self.serves and (self.stands_in or self.lane.role in (role, Role.ALL))

    def for_planner(self) -> WorkerStatus:
        """The planner counts a worker that switches for where it is going."""
        state, lane = self.state, self.lane
        if self.has_lost_head:  # it may end at any moment, which is no failure of its own
            state = WorkerState.DRAINING
        if self.intent is not None:
            lane = self.intent.target
            if state is WorkerState.ROUTABLE:  # asked, not begun; or ended, not yet written down
                state = WorkerState.DRAINING
        return WorkerStatus(
            name=self.name,
            role=lane.role,
            group=lane.group,
            state=state,
            since_s=self.since_s,
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            leaving=self.is_leaving,
        )


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All workers at one moment. `is_known`: a gateway told; else it is what the pods say.

    `wanted_workers`: how many the register was asked for, None where it does not say.
    """

    at_s: float
    workers: tuple[FleetWorker, ...] = ()
    is_known: bool = True
    message: str = ""  # why it is not known
    wanted_workers: int | None = None
    stages: frozenset[Role] = frozenset()  # that the model needs; empty: not known

    def worker(self, name: str) -> FleetWorker | None:
        return next((worker for worker in self.workers if worker.name == name), None)

    @property
    def staying(self) -> tuple[FleetWorker, ...]:
        return tuple(worker for worker in self.workers if not worker.is_leaving)

    def assigned(self) -> Counter[Lane]:
        """Staying workers by the lane they are in or on their way to."""
        return Counter(w.intent.target if w.intent else w.lane for w in self.staying)

    @property
    def is_settled(self) -> bool:
        """Whether nobody who stays is between two roles."""
        return all(w.intent is None and w.adrift_since_s is None for w in self.staying)

    def ready(self) -> Counter[Lane]:
        """Workers that serve, by lane: the gateway routes to them, and their pods are ready."""
        return Counter(w.lane for w in self.workers if w.serves and w.is_ready)

    def stand_ins(self, role: Role) -> tuple[FleetWorker, ...]:
        """Ready workers that belong to another role and serve this one as well."""
        return tuple(
            w
            for w in self.workers
            if w.is_ready and w.lane.role is not role and w.serves_role(role)
        )

    def switching(self) -> Counter[Lane]:
        """Switches under way, by where they lead."""
        return Counter(w.intent.target for w in self.workers if w.intent is not None)


@dataclass(frozen=True, kw_only=True)
class Done:
    """One step that the executor took: a verb, its object, and how it went."""

    verb: str  # Switch, Add, Remove, Advise, Relabel, RollBack, ...
    what: str
    is_start: bool = True  # False: the continuation of an earlier tick's action

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a plan: steps taken, and the first failure, at which it stopped."""

    done: tuple[Done, ...] = ()
    failure: str = ""
    deferred: tuple[str, ...] = field(default=())

    def verbs(self) -> frozenset[str]:
        return frozenset(step.verb for step in self.done)
