"""This file is about what the owner of a service asks of the planner."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import inf

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_planner.field_checks import require_count, require_number
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.ratios import Guards, LaneGuard, raised

# Times a switch takes: a worker that moves as often as it may loses a tenth of its time to it.
DWELL_PER_SWITCH = 10.0
MOST_WORKERS = (
    100_000  # of a role: where no smaller split keeps the ratios, none counts as doing so
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Least and most workers."""

    least: int = 1
    most: int = 1_000_000

    def __post_init__(self) -> None:
        require_count("bounds.least", self.least)
        require_count("bounds.most", self.most)
        if self.least > self.most:
            raise ValueError(f"bounds need 0 <= least <= most, got {self.least}..{self.most}")


AT_LEAST_ONE = Bounds()


@dataclass(frozen=True, kw_only=True)
class RatioGuard:
    """`numerator` workers per `denominator` worker stay within [least, most], in every group.

    Raises:
        ValueError: no two numbers of workers can keep it.
    """

    numerator: Role
    denominator: Role
    least: float = 0.0
    most: float = inf

    def __post_init__(self) -> None:
        for field_name in ("numerator", "denominator"):
            if getattr(self, field_name) not in SPLIT_ROLES:
                wanted = ", ".join(role.value for role in SPLIT_ROLES)
                found = getattr(self, field_name)
                raise ValueError(f"ratio.{field_name}: want one of {wanted}, got {found!r:.60}")
        if self.numerator is self.denominator:
            raise ValueError(f"ratio.denominator: want another role than {self.numerator.value}")
        require_number("ratio.least", self.least)
        if self.most != inf:
            require_number("ratio.most", self.most, above=True)
        if self.least > self.most:
            raise ValueError(
                f"ratio.least: want at most ratio.most ({self.most:g}), got {self.least:g}"
            )


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
    pool_steady_s: float = 600.0  # the same where load only fluctuates: the better forecast counts
    trend_s: float = 300.0  # time constant of the slope
    error_s: float = 3600.0  # time constant of the forecast error
    season_s: float = 86_400.0  # length of the season; 0 switches it off
    season_buckets: int = 96
    burst_sigmas: float = 1.5  # spare workers, in standard deviations of the forecast error
    cache_loss_ratio: float = 0.5  # hit ratio under this share of its level: trust the lower
    silence_s: float = 900.0  # a modality without a request for so long has no demand at all

    def __post_init__(self) -> None:
        for name in ("smoothing_s", "pool_smoothing_s", "pool_steady_s", "trend_s", "error_s"):
            require_number(f"demand.{name}", getattr(self, name), above=True)
        for name in ("season_s", "burst_sigmas", "silence_s"):
            require_number(f"demand.{name}", getattr(self, name))
        require_count("demand.season_buckets", self.season_buckets, least=1)
        require_number("demand.cache_loss_ratio", self.cache_loss_ratio, most=1.0)


@dataclass(frozen=True, kw_only=True)
class DampingPolicy:
    """How fast the fleet may follow the forecast."""

    shrink_window_s: float = 300.0  # the pool shrinks to the largest need of this window
    dwell_s: float | None = None  # a worker keeps its role at least this long; None: see `dwell_s`
    switch_cooldown_s: float = 20.0  # between two switches into opposite directions
    start_deadline_s: float = 900.0  # a worker that starts longer is given up
    start_backoff_s: float = 300.0  # no new workers for so long after giving up, or early crashes
    metrics_timeout_s: float = 60.0  # older signals hold a role
    cold_start_s: float = 60.0  # samples of younger workers are not believed

    def __post_init__(self) -> None:
        for item in fields(self):
            if (value := getattr(self, item.name)) is not None:
                require_number(f"damping.{item.name}", value)


@dataclass(frozen=True, kw_only=True)
class CapacityPolicy:
    """How far the profile is trusted."""

    headroom_ratio: float = 0.1  # of the demand, added before sizing
    correction_min: float = 0.5  # observed / profile step time
    correction_max: float = 2.0
    correction_s: float = 120.0  # time constant
    margin_max: float = 0.5  # most demand added because the SLO was missed
    drain_s: float = 30.0  # a backlog is to be worked off in so long

    def __post_init__(self) -> None:
        for name in ("correction_min", "correction_s", "drain_s"):
            require_number(f"capacity.{name}", getattr(self, name), above=True)
        require_number("capacity.correction_max", self.correction_max, least=self.correction_min)
        for name in ("headroom_ratio", "margin_max"):
            require_number(f"capacity.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class PressurePolicy:
    """When the gateway is asked to relax the cache, use lossy options or shed."""

    enter_load: float = 1.0  # need / routable workers above which pressure builds
    leave_load: float = 0.8
    hold_s: float = 30.0
    max_shed_ratio: float = 0.0  # 0: never ask the gateway to shed

    def __post_init__(self) -> None:
        require_number("pressure.enter_load", self.enter_load, above=True)
        require_number("pressure.leave_load", self.leave_load)
        require_number("pressure.hold_s", self.hold_s)
        require_number("pressure.max_shed_ratio", self.max_shed_ratio, most=1.0)


@dataclass(frozen=True, kw_only=True)
class PlannerPolicy:
    """Everything `plan` may assume. Units: workers, unless a name says GPUs.

    Raises:
        ValueError: a field that cannot be, or bounds, ratios and budget that no fleet keeps.
    """

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
        require_count("gpus_per_worker", self.gpus_per_worker, least=1)
        if self.gpu_budget is not None:
            require_count("gpu_budget", self.gpu_budget, least=0)
        require_number("tick_s", self.tick_s, above=True)
        for name in ("min_switch_gain_s", "rebalance_gain", "expert_cost_factor"):
            require_number(name, getattr(self, name))
        if self.pool.least > self.max_workers:
            raise ValueError(
                f"pool.least: want at most {self.max_workers}, what gpu_budget "
                f"{self.gpu_budget} pays, got {self.pool.least}"
            )
        smallest = self.smallest_split
        if smallest is None:
            raise ValueError("ratios: want guards that some split within the roles' bounds keeps")
        if sum(smallest.values()) > self.max_workers:
            raise ValueError(
                f"the roles' minima and ratios need {sum(smallest.values())} workers, "
                f"the pool allows {self.max_workers}"
            )

    @property
    def dwell_s(self) -> float:
        """How long a worker keeps its role at least: as asked, else by what a switch costs.

        Where switches are cheap the fleet may follow in seconds what it would otherwise wait out.
        """
        if self.damping.dwell_s is not None:
            return self.damping.dwell_s
        return DWELL_PER_SWITCH * max(self.profile.switch_s, self.profile.reload_switch_s)

    @cached_property
    def guards(self) -> Guards:
        """The ratio guards of every group that has both roles."""
        lanes = set(self.lanes)
        every = (
            LaneGuard(
                above=Lane(group.name, item.numerator),
                below=Lane(group.name, item.denominator),
                least=item.least,
                most=item.most,
            )
            for group in self.groups
            for item in self.ratios
        )
        return tuple(guard for guard in every if {guard.above, guard.below} <= lanes)

    @property
    def smallest_split(self) -> Mapping[Lane, int] | None:
        """The fewest workers that keep minima and ratios; None: the maxima forbid it."""
        least = {lane: self.bounds(lane).least for lane in self.lanes}
        most = {lane: min(self.bounds(lane).most, MOST_WORKERS) for lane in self.lanes}
        return raised(least, self.guards, {k: max(v, least[k]) for k, v in most.items()})

    @property
    def has_given_size(self) -> bool:
        """Whether the number of workers is another's to choose: the planner moves them alone."""
        return self.fixed_pool or self.pool.least >= self.max_workers

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
