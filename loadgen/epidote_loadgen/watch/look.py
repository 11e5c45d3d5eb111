"""This file is about what one look at a service can show, from whatever source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class LookFailed(Exception):
    """A source could not be read this time; the message has no secrets."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision of an autoscaler; `at_unix_s` is when it was taken."""

    at_unix_s: float
    reason: str
    text: str
    binding: str = ""
    counterfactual: str = ""
    targets: Mapping[str, int] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    carried_out: bool = True


@dataclass(frozen=True, kw_only=True)
class Look:
    """Counts by role, then by state; totals since the service started. Empty: not told here."""

    workers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)  # requests, by role
    running: Mapping[str, float] = field(default_factory=dict)  # sequences, by role
    desired: Mapping[str, int] = field(default_factory=dict)  # workers, by role
    # By (from role, to role, outcome).
    switches: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    decided: Mapping[str, float] = field(default_factory=dict)  # changed decisions, by reason
    decisions: tuple[Decision, ...] = ()


class Source(Protocol):
    """Where looks come from."""

    @property
    def name(self) -> str: ...

    async def look(self) -> Look:
        """How things stand now. Raises LookFailed."""
        ...

    async def close(self) -> None: ...
