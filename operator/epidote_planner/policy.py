"""This file is about what the owner of a service asks of the planner."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.performance import PerformanceProfile


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Least and most workers."""

    least: int = 1
    most: int = 1_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"bounds need 0 <= least <= most, got {self.least}..{self.most}")


AT_LEAST_ONE = Bounds()


@dataclass(frozen=True, kw_only=True)
class RatioGuard:
    """`numerator` workers per `denominator` worker stay within [least, most]."""

    numerator: Role
    denominator: Role
    least: float = 0.0
    most: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class ModalityGroup:
    """Modalities that share workers; a group's workers serve no other group."""

    name: str
    modalities: tuple[Modality, ...]


@dataclass(frozen=True, kw_only=True)
class DemandPolicy:
    """How arrivals become a forecast."""

    smoothing_s: float = 30.0  # time constant of the level
    pool_smoothing_s: float = 60.0  # of the pool's need: peaks of seconds start no worker
    trend_s: float = 300.0  # time constant of the slope
    error_s: float = 3600.0  # time constant of the forecast error
    season_s: float = 86_400.0  # length of the season; 0 switches it off
    season_buckets: int = 96
    burst_sigmas: float = 1.5  # spare workers, in standard deviations of the forecast error
    cache_loss_ratio: float = 0.5  # hit ratio under this share of its level: trust the lower


@dataclass(frozen=True, kw_only=True)
class DampingPolicy:
    """How fast the fleet may follow the forecast."""

    shrink_window_s: float = 300.0  # the pool shrinks to the largest need of this window
    dwell_s: float = 30.0  # a worker keeps its role at least this long
    switch_cooldown_s: float = 20.0  # between two switches into opposite directions
    start_deadline_s: float = 900.0  # a worker that starts longer is given up
    start_backoff_s: float = 300.0  # no new workers for so long after giving up, or early crashes
    metrics_timeout_s: float = 60.0  # older signals hold a role
    cold_start_s: float = 60.0  # samples of younger workers are not believed


@dataclass(frozen=True, kw_only=True)
class CapacityPolicy:
    """How far the profile is trusted."""

    headroom_ratio: float = 0.1  # of the demand, added before sizing
    correction_min: float = 0.5  # observed / profile step time
    correction_max: float = 2.0
    correction_s: float = 120.0  # time constant
    margin_max: float = 0.5  # most demand added because the SLO was missed
    drain_s: float = 30.0  # a backlog is to be worked off in so long


@dataclass(frozen=True, kw_only=True)
class PressurePolicy:
    """When the gateway is asked to relax the cache, use lossy options or shed."""

    enter_load: float = 1.0  # need / routable workers above which pressure builds
    leave_load: float = 0.8
    hold_s: float = 30.0
    max_shed_ratio: float = 0.0  # 0: never ask the gateway to shed


@dataclass(frozen=True, kw_only=True)
class PlannerPolicy:
    """Everything `plan` may assume. Units: workers, unless a name says GPUs."""

    profile: PerformanceProfile
    slo: Slo
    slo_by_modality: Mapping[Modality, Slo] = field(default_factory=dict)
    pool: Bounds = AT_LEAST_ONE
    roles: Mapping[Role, Bounds] = field(
        default_factory=lambda: dict.fromkeys(SPLIT_ROLES, AT_LEAST_ONE)
    )
    gpus_per_worker: int = 1
    gpu_budget: int | None = None
    ratios: tuple[RatioGuard, ...] = ()
    groups: tuple[ModalityGroup, ...] = (
        ModalityGroup(name=DEFAULT_GROUP, modalities=tuple(Modality)),
    )
    fixed_pool: bool = False  # the number of workers is another's business: only switch roles
    tick_s: float = 10.0
    demand: DemandPolicy = DemandPolicy()
    damping: DampingPolicy = DampingPolicy()
    capacity: CapacityPolicy = CapacityPolicy()
    pressure: PressurePolicy = PressurePolicy()
    min_switch_gain_s: float = 1.0  # worker-seconds a switch must win over its cost
    rebalance_gain: float = 1.3  # idle workers move only for so much more burst tolerance
    expert_cost_factor: float = 2.0  # an expert move must win so many times its cost

    def __post_init__(self) -> None:
        if self.gpus_per_worker < 1:
            raise ValueError(f"gpus_per_worker must be >= 1, got {self.gpus_per_worker}")
        least = sum(self.bounds(lane).least for lane in self.lanes)
        if least > self.max_workers:
            raise ValueError(
                f"the roles' minima need {least} workers, the pool allows {self.max_workers}"
            )

    @property
    def max_workers(self) -> int:
        """The pool's maximum under the GPU budget."""
        if self.gpu_budget is None:
            return self.pool.most
        return min(self.pool.most, self.gpu_budget // self.gpus_per_worker)

    def free_slots(self, num_pods: int) -> int:
        """Workers that the GPU budget still has room for; every pod counts until it is gone."""
        if self.gpu_budget is None:
            return self.max_workers
        return max(0, self.gpu_budget // self.gpus_per_worker - num_pods)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Every lane a worker can be in, in the order encode, prefill, decode."""
        return tuple(
            Lane(group.name, role)
            for group in self.groups
            for role in SPLIT_ROLES
            if role is not Role.ENCODE or any(m.needs_encode for m in group.modalities)
        )

    def bounds(self, lane: Lane) -> Bounds:
        return self.roles.get(lane.role, AT_LEAST_ONE)

    def slo_for(self, modality: Modality) -> Slo:
        return self.slo_by_modality.get(modality, self.slo)

    def switch_cost_s(self, source: Role, target: Role) -> float:
        """Seconds that one switch takes once the worker is drained."""
        if source is target:
            return 0.0
        if Role.ENCODE in (source, target):
            return self.profile.reload_switch_s
        return self.profile.switch_s
