"""This file is about translating a MultimodalService into what the planner asks for."""

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_operator.spec.default_profile import default_profile
from epidote_operator.spec.external_scale import external_scale
from epidote_operator.spec.model_source import ServedModality
from epidote_operator.spec.multimodal_service import ExpertRebalancing, MultimodalServiceSpec
from epidote_operator.spec.scaling import ScalingOwner, ScalingSpec
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES
from epidote_planner.policy import (
    Bounds,
    CapacityPolicy,
    DampingPolicy,
    DemandPolicy,
    ModalityGroup,
    PlannerPolicy,
    PressurePolicy,
    RatioGuard,
)

NO_EXPERTS = 1e12  # no move wins so many times its cost


def modality_of(modality: ServedModality) -> Modality:
    """
    >>> modality_of(ServedModality.IMAGE)
    <Modality.IMAGE: 'image'>
    """
    return Modality(modality.value.lower())


def role_bounds(spec: MultimodalServiceSpec) -> dict[Role, Bounds]:
    """Bounds of every role; each that the model needs has at least one worker, whatever is asked.

    A gateway is ready only while every stage is served, and the workers' register turns somebody
    round for a stage that nobody serves: a fleet without an encoder would serve nobody, or have one
    taken away and brought back for ever.
    """
    bounds = dict.fromkeys(SPLIT_ROLES, Bounds())
    for item in spec.roles:
        bounds[item.name.role] = Bounds(least=max(1, item.min_workers), most=item.max_workers)
    return bounds


def modality_groups(spec: MultimodalServiceSpec) -> tuple[ModalityGroup, ...]:
    """The groups asked for, else one of all of the model's modalities."""
    if not spec.groups:
        served = tuple(modality_of(modality) for modality in spec.model.modalities)
        return (ModalityGroup(name=DEFAULT_GROUP, modalities=served),)
    return tuple(
        ModalityGroup(
            name=group.name,
            modalities=tuple(modality_of(modality) for modality in group.modalities),
        )
        for group in spec.groups
    )


def planner_policy(spec: MultimodalServiceSpec) -> PlannerPolicy:
    """What `plan` may assume for this service. `spec` is valid (see `validation.py`).

    An external owner's number is both bounds of the pool, so that the planner still chooses who
    leaves; until the owner has given one, the pool stays as it is.
    """
    pool, scaling = spec.pool, spec.scaling
    external = scaling.owner is ScalingOwner.EXTERNAL
    scale = external_scale(spec)
    asked = None if scale is None else scale.granted
    return PlannerPolicy(
        profile=spec.performance.profile() if spec.performance else default_profile(pool.device),
        slo=spec.slo.slo(),
        slo_by_modality={
            modality_of(item.modality): spec.slo.slo(item.modality)
            for item in spec.slo.per_modality
        },
        pool=Bounds(
            least=pool.min_workers if asked is None else asked,
            most=pool.max_workers if asked is None else asked,
        ),
        roles=role_bounds(spec),
        gpus_per_worker=max(1, pool.gpus),
        gpu_budget=pool.gpu_budget if pool.gpus else None,
        ratios=tuple(
            RatioGuard(
                numerator=item.numerator.role,
                denominator=item.denominator.role,
                least=item.min_percent / 100,
                most=item.max_percent / 100,
            )
            for item in spec.ratios
        ),
        groups=modality_groups(spec),
        fixed_pool=external and asked is None,
        tick_s=float(scaling.tick_seconds),
        demand=_demand(scaling),
        damping=_damping(scaling),
        capacity=CapacityPolicy(headroom_ratio=scaling.forecast.headroom_percent / 100),
        pressure=PressurePolicy(
            enter_load=scaling.pressure.enter_load_percent / 100,
            leave_load=scaling.pressure.leave_load_percent / 100,
            hold_s=float(scaling.pressure.hold_seconds),
            max_shed_ratio=scaling.pressure.max_shed_percent / 100,
        ),
        expert_cost_factor=(
            spec.experts.min_gain_percent / 100
            if spec.experts.rebalancing is ExpertRebalancing.AUTO
            else NO_EXPERTS
        ),
    )


def _demand(scaling: ScalingSpec) -> DemandPolicy:
    return DemandPolicy(
        smoothing_s=float(scaling.forecast.smoothing_seconds),
        trend_s=float(scaling.forecast.trend_seconds),
        season_s=float(scaling.forecast.season_seconds),
        burst_sigmas=scaling.forecast.burst_sigmas_percent / 100,
    )


def _damping(scaling: ScalingSpec) -> DampingPolicy:
    return DampingPolicy(
        shrink_window_s=float(scaling.shrink_window_seconds),
        dwell_s=None if scaling.dwell_seconds is None else float(scaling.dwell_seconds),
        switch_cooldown_s=float(scaling.switch_cooldown_seconds),
        start_deadline_s=float(scaling.start_deadline_seconds),
        start_backoff_s=float(scaling.start_backoff_seconds),
        metrics_timeout_s=float(scaling.metrics_timeout_seconds),
        cold_start_s=float(scaling.cold_start_seconds),
    )
