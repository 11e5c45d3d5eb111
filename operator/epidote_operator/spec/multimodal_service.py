"""This file is about MultimodalService: a model, the fleet that serves it, and its promise."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from epidote_operator.spec.cluster import (
    ClusterSpec,
    GatewaySpec,
    MetricsSpec,
    NetworkSpec,
    RolloutSpec,
)
from epidote_operator.spec.field_model import (
    ImageName,
    ObjectName,
    SpecModel,
    cel_rules,
    list_map,
)
from epidote_operator.spec.model_source import ModelSpec
from epidote_operator.spec.objectives import SloSpec
from epidote_operator.spec.performance import PerformanceSpec
from epidote_operator.spec.pool import PoolSpec
from epidote_operator.spec.role_bounds import GroupSpec, RatioSpec, RoleSpec
from epidote_operator.spec.scaling import ScalingSpec

PLURAL = "multimodalservices"


class ExpertRebalancing(StrEnum):
    """Whether the experts of a mixture-of-experts model may move between a worker's GPUs."""

    AUTO = "Auto"
    OFF = "Off"


class ExpertsSpec(SpecModel):
    """Answering skewed expert load by moving experts between the GPUs of each worker."""

    model_config = cel_rules(
        (
            "self.parallel || self.redundantExperts == 0",
            "must be 0, or parallel be true: only whole experts have slots",
            ".redundantExperts",
        ),
    )

    parallel: bool = False
    """Each GPU of a worker holds whole experts, which can be moved, instead of a slice of every
    one. Only for mixture-of-experts models, with `pool.tensorParallelSize` of at least 2. A change
    replaces the workers."""
    redundant_experts: Annotated[int, Field(ge=0, le=4096)] = 0
    """Slots of every layer beyond one for each expert, for second places of busy ones. The model's
    experts and these must be divisible by `pool.tensorParallelSize`. Each costs an expert's weights
    in every layer. A change replaces the workers."""
    rebalancing: ExpertRebalancing = ExpertRebalancing.AUTO
    """Auto: experts move when that wins more than it costs. Off: never."""
    min_gain_percent: Annotated[int, Field(ge=100, le=10_000)] = 200
    """A move must win at least so many percent of its own cost."""
    decode_time_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """Share of a decode step that experts take, which is what uneven ones stretch. Default: a
    guess."""

    @property
    def time_ratio(self) -> float:
        return self.decode_time_percent / 100


class CacheSpec(SpecModel):
    """The response cache of the gateways."""

    policy_name: ObjectName | None = None
    """CachePolicy of this namespace. Default: no answer is ever cached."""


class MultimodalServiceSpec(SpecModel):
    """What is served, on what, how fast, and who decides."""

    model_config = cel_rules(
        (
            "!has(self.pool.workers) || self.scaling.owner == 'External'",
            "must be left out, or scaling.owner be External: the number has one owner",
            ".pool.workers",
        ),
        (
            "!self.experts.parallel || self.pool.tensorParallelSize > 1",
            "must be false, or pool.tensorParallelSize at least 2: experts lie on a worker's GPUs",
            ".experts.parallel",
        ),
        (
            "!has(self.model.quantization) || self.pool.device == 'Cuda'"
            " || self.model.dtype == 'Float16'",
            "must be left out, or model.dtype be Float16: pool.device is Cpu",
            ".model.quantization",
        ),
    )

    model: ModelSpec
    """The model."""
    image: ImageName | None = None
    """Image of head, workers and gateways. Default: the operator's own setting."""
    pool: PoolSpec
    """The workers' hardware and number."""
    slo: SloSpec
    """The latency promise the fleet is sized for."""
    roles: Annotated[
        tuple[RoleSpec, ...], Field(max_length=3, json_schema_extra=list_map("name"))
    ] = ()
    """Bounds per role. A role that isn't listed has at least one worker, and no upper bound."""
    ratios: Annotated[
        tuple[RatioSpec, ...],
        Field(max_length=6, json_schema_extra=list_map("numerator", "denominator")),
    ] = ()
    """Guards on the ratio of two roles."""
    groups: Annotated[
        tuple[GroupSpec, ...], Field(max_length=4, json_schema_extra=list_map("name"))
    ] = ()
    """Modalities served apart from each other. Default: all share the workers."""
    scaling: ScalingSpec = ScalingSpec()
    """Who decides, and how fast the fleet follows."""
    performance: PerformanceSpec | None = None
    """How long a worker takes for each stage. Default: a cautious guess, corrected from what the
    workers measure."""
    experts: ExpertsSpec = ExpertsSpec()
    """Moving experts of mixture-of-experts models."""
    cache: CacheSpec = CacheSpec()
    """The response cache."""
    gateway: GatewaySpec = GatewaySpec()
    """The API in front of the fleet."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster under the workers."""
    metrics: MetricsSpec = MetricsSpec()
    """Where measurements come from."""
    network: NetworkSpec = NetworkSpec()
    """Who may talk to the pods."""
    rollout: RolloutSpec = RolloutSpec()
    """How changes reach a serving fleet."""

    kind: ClassVar[str] = "MultimodalService"
