"""This file is about CachePolicy: the gateways' own policy as a resource, and who uses it."""

from typing import Annotated

from pydantic import Field

from epidote_gateway.cache.policy import CachePolicy as CachePolicySpec
from epidote_operator.spec.field_model import StatusModel, list_map
from epidote_operator.spec.service_status import Condition, Timestamp

PLURAL = "cachepolicies"
KIND = "CachePolicy"

__all__ = [
    "KIND",
    "PLURAL",
    "CachePolicySpec",
    "CachePolicyStatus",
    "PolicyUserStatus",
    "without_effect",
]


def without_effect(policy: CachePolicySpec) -> list[str]:
    """What to tell the owner: load adaptations that can't lower their category's threshold."""
    return [
        f"categories[{number}].loadAdaptation.thresholdFloor: {load.threshold_floor:g} is not "
        f"below the threshold ({category.threshold:g}), so thresholdStep changes nothing"
        for number, category in enumerate(policy.categories)
        if (load := category.load_adaptation).threshold_step > 0.0
        and load.threshold_floor >= category.threshold
    ]


class PolicyUserStatus(StatusModel):
    """One service that names this policy."""

    name: str
    """Name of the MultimodalService."""
    gateways: int = 0
    """Its gateways."""
    applied: int = 0
    """Gateways that follow the present generation."""


class CachePolicyStatus(StatusModel):
    """Whether the policy is valid and where it is in force."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status is about."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra=list_map("type")),
    ] = ()
    """Ready: valid, and every gateway that uses it follows it."""
    services: Annotated[
        tuple[PolicyUserStatus, ...],
        Field(json_schema_extra=list_map("name")),
    ] = ()
    """Services that name this policy."""
    num_categories: int = 0
    """Categories, for `kubectl get`."""
    applied_at: Timestamp | None = None
    """When the last gateway took over the present generation."""
