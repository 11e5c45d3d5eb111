"""This file is about the planner's answer: targets, ordered actions, memory, explanation, trace."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from epidote_core.roles import Role
from epidote_planner.experts import ExpertMove
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.memory import PlannerMemory


class Reason(StrEnum):
    """Why a plan is what it is. A closed set: dashboards and alerts may match on it."""

    STEADY = "Steady"
    DEMAND_ROSE = "DemandRose"
    DEMAND_FELL = "DemandFell"
    DEMAND_SHIFTED = "DemandShifted"  # another split of the same number of workers
    BACKLOG = "Backlog"
    SLO_MISSED = "SloMissed"
    FORECAST = "Forecast"
    CACHE_LOST = "CacheLost"
    EXPERT_SKEW = "ExpertSkew"
    SLO_UNREACHABLE = "SloUnreachable"  # by any number of workers
    BUDGET_BOUND = "BudgetBound"
    SHRINK_WINDOW = "ShrinkWindow"
    COOLDOWN = "Cooldown"
    METRICS_STALE = "MetricsStale"
    METRICS_MISSING = "MetricsMissing"
    START_TIMED_OUT = "StartTimedOut"
    WORKER_FAILED = "WorkerFailed"  # it crashed, or was killed


class Constraint(StrEnum):
    """What keeps the fleet from being smaller, or larger."""

    TTFT = "TTFT"
    TPOT = "TPOT"
    KV_MEMORY = "KVMemory"
    MINIMUM = "Minimum"
    ROLE_MAXIMUM = "RoleMaximum"
    GPU_BUDGET = "GPUBudget"
    POOL_MAXIMUM = "PoolMaximum"
    ROLE_RATIO = "RoleRatio"
    DAMPING = "Damping"
    METRICS = "Metrics"


@dataclass(frozen=True, kw_only=True)
class AdviseGateway:
    """Immediate. Pressures lie in [0, 1]; 0 takes everything back."""

    cache_pressure: float
    lossy_pressure: float
    shed_ratio: float


@dataclass(frozen=True, kw_only=True)
class SwitchRole:
    """Seconds. One worker drains, switches, verifies and serves elsewhere."""

    worker: str
    source: Lane
    target: Lane


@dataclass(frozen=True, kw_only=True)
class MoveExperts:
    """Seconds."""

    move: ExpertMove


@dataclass(frozen=True, kw_only=True)
class AddWorkers:
    """Minutes."""

    lane: Lane
    count: int


@dataclass(frozen=True, kw_only=True)
class RemoveWorker:
    """Drain first, then delete. `gave_up`: it never became routable, or failed."""

    worker: str
    lane: Lane
    gave_up: bool = False


Action = AdviseGateway | SwitchRole | MoveExperts | AddWorkers | RemoveWorker


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A lane (or the whole pool, lane None) that this plan leaves alone, and why.

    `field`: the snapshot's field whose value could not be, e.g. "traffic.image.arrival_rps".
    """

    lane: Lane | None
    reason: Reason
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """For the person on call. `text` is one paragraph; the rest is for machines."""

    reason: Reason
    binding: Constraint
    counterfactual: str
    text: str
    inputs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of the decision, in order: its name, what it found, and a remark if it has one."""

    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do now. Acting on `actions` in order is safe; doing nothing is, too."""

    targets: Mapping[Lane, int]
    actions: tuple[Action, ...]
    memory: PlannerMemory
    explanation: Explanation
    holds: tuple[Hold, ...] = ()
    trace: tuple[Step, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.targets.values())

    def target(self, role: Role, group: str = DEFAULT_GROUP) -> int:
        """Workers that `role` shall have."""
        return self.targets.get(Lane(group, role), 0)
