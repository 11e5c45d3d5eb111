"""This file is about what the owner of a service may ask of its roles: bounds, ratios, groups."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from epidote_core.roles import Role
from epidote_operator.spec.field_model import (
    LIST_SET,
    MAX_WORKERS,
    Name,
    SpecModel,
    WorkerCount,
    cel_rules,
)
from epidote_operator.spec.model_source import ServedModality


class RoleName(StrEnum):
    """A worker's role, as the resource spells it."""

    ENCODE = "Encode"
    PREFILL = "Prefill"
    DECODE = "Decode"

    @property
    def role(self) -> Role:
        """
        >>> RoleName.ENCODE.role
        <Role.ENCODE: 'encode'>
        """
        return Role(self.value.lower())

    @classmethod
    def of(cls, role: Role) -> "RoleName":
        """The resource's spelling of a role; `all` has none.

        >>> RoleName.of(Role.DECODE).value
        'Decode'
        """
        return cls(role.value.capitalize())


class RoleSpec(SpecModel):
    """Bounds of one role. A group of modalities has its own workers: bounds hold in each group."""

    model_config = cel_rules(
        (
            "self.minWorkers <= self.maxWorkers",
            "must be at most maxWorkers",
            ".minWorkers",
        )
    )

    name: RoleName
    """The role."""
    min_workers: WorkerCount = 1
    """Least workers in this role. 0 counts as 1: every stage of the model is always served."""
    max_workers: WorkerCount = MAX_WORKERS
    """Most workers in this role."""


class RatioSpec(SpecModel):
    """A guard on two roles: `numerator` workers per 100 `denominator` workers."""

    model_config = cel_rules(
        ("self.numerator != self.denominator", "must be another role", ".denominator"),
        ("self.minPercent <= self.maxPercent", "must be at most maxPercent", ".minPercent"),
    )

    numerator: RoleName
    """The role that is counted."""
    denominator: RoleName
    """The role it is compared with."""
    min_percent: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Least workers of `numerator` per 100 of `denominator`."""
    max_percent: Annotated[int, Field(ge=1, le=100_000)] = 100_000
    """Most workers of `numerator` per 100 of `denominator`."""


class GroupSpec(SpecModel):
    """Modalities that share workers; the workers of a group serve no other group."""

    name: Name
    """Name of the group."""
    modalities: Annotated[
        tuple[ServedModality, ...],
        Field(min_length=1, max_length=4, json_schema_extra=LIST_SET),
    ]
    """Modalities of the group. Each modality of the model belongs to exactly one group."""
