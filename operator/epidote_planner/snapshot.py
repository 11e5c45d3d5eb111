"""This file is about what the planner sees at one tick, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_planner.distribution import NOTHING, Distribution
from epidote_planner.experts import ExpertLoad
from epidote_planner.lane import DEFAULT_GROUP


@dataclass(frozen=True, kw_only=True)
class ServiceSample:
    """One worker's measured mean step time, with what the steps carried.

    Encode: `images` and `tokens` a batch. Prefill: `tokens` a step, after `context` cached ones.
    Decode: `sequences` and the `context` tokens they hold in sum.
    """

    seconds: float
    sequences: float = 0.0
    images: float = 0.0
    tokens: float = 0.0
    context: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker of the pool: its assignment and where it is in its life.

    `role` is the assignment: a worker that drains or switches counts for where it is going.
    `since_s`: when it entered its present role (routable, failed) or state (otherwise); of a worker
    that failed before it served, its start.
    `leaving`: it drains to be removed, and counts nowhere.
    """

    name: str
    role: Role
    state: WorkerState = WorkerState.ROUTABLE
    since_s: float = 0.0
    group: str = DEFAULT_GROUP
    num_running: int = 0
    num_waiting: int = 0
    leaving: bool = False
    sample: ServiceSample | None = None


@dataclass(frozen=True, kw_only=True)
class ModalityTraffic:
    """Arrivals of one modality over the last window, as seen at the gateway's front door."""

    modality: Modality
    arrival_rps: float
    input_tokens: Distribution  # text tokens of the prompt
    output_tokens: Distribution
    images: Distribution = NOTHING
    image_tokens: Distribution = NOTHING  # per request, all of its media together


@dataclass(frozen=True, kw_only=True)
class RoleSignals:
    """Queues of one role. A role without an entry has no metrics: its target is held."""

    measured_at_s: float
    num_waiting: int = 0
    waiting_tokens: float = 0.0  # prompt or image tokens that wait; 0 for decode
    num_running: int = 0
    kv_utilization: float = 0.0
    busy_utilization: float = 0.0  # share of the window its workers computed; rivals scale on it


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """How the last window's requests did against the SLO, each target apart."""

    measured_at_s: float
    num_requests: int
    ttft_ratio: float
    tpot_ratio: float


@dataclass(frozen=True, kw_only=True)
class CacheSignals:
    """Hit ratios over the last window, each in [0, 1]."""

    response_hit_ratio: float = 0.0
    prefix_hit_ratio: float = 0.0
    encoder_hit_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClusterSnapshot:
    """One observation. `plan` reads the time from here: it owns no clock."""

    now_s: float
    workers: tuple[WorkerStatus, ...] = ()
    traffic: tuple[ModalityTraffic, ...] = ()
    traffic_at_s: float | None = None  # None: no traffic metrics at all
    roles: Mapping[Role, RoleSignals] = field(default_factory=dict)
    attainment: Attainment | None = None
    cache: CacheSignals = CacheSignals()
    experts: ExpertLoad | None = None

    def __post_init__(self) -> None:
        names = {worker.name for worker in self.workers}
        if len(names) != len(self.workers):
            raise ValueError("two workers of a snapshot share a name")
