"""This file is about what the operator tells of a MultimodalService: numbers, reasons, memory."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from epidote_core.roles import Role
from epidote_operator.spec.field_model import StatusModel, list_map
from epidote_operator.spec.pool import PASS_THROUGH
from epidote_operator.spec.role_bounds import RoleName

MAX_DECISIONS = 10  # shown in the status; more belong into logs and metrics

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """The conditions of a MultimodalService."""

    READY = "Ready"  # every stage has a routable worker and the gateways answer
    PROGRESSING = "Progressing"  # workers start, leave, or are replaced
    SCALING_ACTIVE = "ScalingActive"  # metrics are there and decisions are carried out
    SCALING_LIMITED = "ScalingLimited"  # a bound or the budget keeps the fleet from its need
    ABLE_TO_SCALE = "AbleToScale"  # pods can be created, workers be reached
    ROLE_SWITCHING = "RoleSwitching"  # a worker is between two roles
    SLO_MET = "SloMet"  # the last window's requests met the objective
    EXPERTS_PLACED = "ExpertsPlaced"  # every worker's experts lie where they were told to
    CACHE_POLICY = "CachePolicyInForce"  # every gateway follows the policy that the spec names


class ConditionStatus(StrEnum):
    """As in metav1."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """A metav1 condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What is meant."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Annotated[
        str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)
    ]
    """Why, as one CamelCase word for machines."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Why, for people."""
    last_transition_time: Timestamp
    """When `status` changed last."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that it was judged by."""


class WorkerRole(StrEnum):
    """What a worker serves: one role, or every one while others are missing."""

    ENCODE = "Encode"
    PREFILL = "Prefill"
    DECODE = "Decode"
    ALL = "All"

    @classmethod
    def of(cls, role: Role) -> "WorkerRole":
        """
        >>> WorkerRole.of(Role.ALL).value
        'All'
        """
        return cls(role.value.capitalize())


class RoleStatus(StatusModel):
    """Workers of one role."""

    name: RoleName
    """The role."""
    desired: int = 0
    """Workers the last decision wants in this role."""
    ready: int = 0
    """Workers of it that serve now."""
    stand_ins: int = 0
    """Workers of other roles that serve this one as well, while it has none of its own."""
    switching: int = 0
    """Workers on their way into this role."""


class SwitchState(StrEnum):
    """Where a role switch is; the worker's own states, as the resource spells them."""

    ROUTABLE = "Routable"  # decided, not begun
    UNLABELLED = "Unlabelled"  # no new requests
    DRAINING = "Draining"
    SWITCHING = "Switching"
    VERIFYING = "Verifying"
    ROLLING_BACK = "RollingBack"


class SwitchStatus(StatusModel):
    """One role switch under way."""

    worker: str
    """Name of the worker's pod."""
    from_role: WorkerRole
    """Role it leaves."""
    to_role: WorkerRole
    """Role it takes."""
    epoch: int
    """The worker's epoch before the switch; it grows by one with each."""
    state: SwitchState
    """How far it is."""
    started_at: Timestamp
    """When it was decided."""
    deadline: Timestamp
    """When the drain is given up and the switch rolled back."""


class AttainmentStatus(StatusModel):
    """How the last window's requests did against the SLO, in percent of requests."""

    measured_at: Timestamp
    """End of the window."""
    requests: int = 0
    """Requests that finished in the window."""
    ttft_percent: float | None = None
    """Share that met the time to first token."""
    tpot_percent: float | None = None
    """Share that met the time per output token."""


class DecisionStatus(StatusModel):
    """One decision that differed from the one before."""

    at: Timestamp
    """When it was taken."""
    reason: str
    """Why, as one CamelCase word."""
    binding: str
    """What kept the fleet from being smaller, or larger."""
    targets: dict[str, int] = Field(default_factory=dict)
    """Workers wanted, by lane (`decode`, or `text/decode` where there are groups)."""
    actions: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """What was to be done, one line each."""
    carried_out: bool = False
    """False in Advisory mode, and while earlier actions still run."""
    text: str = ""
    """The decision in one paragraph."""
    counterfactual: str = ""
    """What would have changed the outcome."""
    inputs: dict[str, float] = Field(default_factory=dict)
    """Figures the decision was taken on."""


class GpuStatus(StatusModel):
    """GPUs of the service."""

    used: int = 0
    """GPUs of all worker pods that have a node, those that start or leave included."""
    budget: int | None = None
    """Most it may hold."""


class RolloutStatus(StatusModel):
    """How far a change of model, image or hardware has come."""

    revision: str
    """Revision that comes up beside the one that serves."""
    ready_workers: int
    """Workers of it that serve."""
    old_workers: int
    """Workers of the revision that it replaces."""
    wanted: dict[str, int] = Field(default_factory=dict)
    """Workers that the service shall have in the end, by lane: as many as when the change began."""
    shifted: bool = False
    """Whether clients reach the new revision already and only some of its workers are missing."""
    progressed_at: Timestamp
    """When either of these numbers changed last."""
    failed: bool = False
    """Whether that is longer ago than `rollout.progressDeadlineSeconds`."""
    message: str | None = None
    """What keeps it waiting, or makes it do what rollouts usually don't."""


class HeadStatus(StatusModel):
    """Ray's head as it was seen last. Workers and gateways belong to the one that they joined."""

    revision: str
    """Revision whose head it is."""
    life: str
    """The head's pod and how often its container was restarted there."""
    changes: int = 0
    """How often the revision's head came back as another one."""


class MultimodalServiceStatus(StatusModel):
    """What the operator saw and decided last."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))] = ()
    """Ready, Progressing, ScalingActive, ScalingLimited, AbleToScale, RoleSwitching, SloMet; and
    CachePolicyInForce where a policy is named."""
    workers: int = 0
    """Worker pods, for `/scale`."""
    ready_workers: int = 0
    """Workers that serve."""
    desired_workers: int = 0
    """Workers the last decision wants."""
    selector: str = ""
    """Label selector of the worker pods, for `/scale`."""
    roles: Annotated[tuple[RoleStatus, ...], Field(json_schema_extra=list_map("name"))] = ()
    """Workers by role."""
    role_summary: str = ""
    """Ready workers as encode/prefill/decode, for `kubectl get`; `+1` after a role that a worker of
    another one serves as well."""
    gpus: GpuStatus = GpuStatus()
    """GPUs against the budget."""
    switches: Annotated[tuple[SwitchStatus, ...], Field(json_schema_extra=list_map("worker"))] = ()
    """Role switches under way."""
    attainment: AttainmentStatus | None = None
    """How the last window's requests did."""
    decisions: Annotated[tuple[DecisionStatus, ...], Field(max_length=MAX_DECISIONS)] = ()
    """The last decisions, newest first."""
    kept_workers: dict[str, int] = Field(default_factory=dict)
    """Workers by lane as the last decision left them. While nothing is decided (mode Off or
    Advisory, no metrics) those that get lost are replaced."""
    last_scale_time: Timestamp | None = None
    """When the number of workers was changed last."""
    revision: str = ""
    """Hash of what worker pods are made from; pods of another revision are replaced."""
    head: HeadStatus | None = None
    """Ray's head; where another one takes its place, workers and gateways are replaced."""
    rollout: RolloutStatus | None = None
    """The change under way; absent while there is none."""
    url: str = ""
    """Address of the API inside the cluster."""
    last_good_spec: Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)] | None = None
    """The last valid spec: the fleet follows it while the present one is refused."""
    memory: Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)] | None = None
    """The planner's memory, so that a restarted operator decides the same."""
