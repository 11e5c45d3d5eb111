"""This file is about what the planner remembers between ticks, as values that survive JSON.

It is written into the resource's status, so a process killed between two ticks changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from epidote_planner.distribution import Distribution
from epidote_planner.forecast import Series

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ModalityMemory:
    """Smoothed arrivals of one modality. `rates`: per second; `shapes`: per request."""

    rates: Mapping[str, Series] = field(default_factory=dict)
    shapes: Mapping[str, Distribution] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlannerMemory:
    """Everything that one tick tells the next. Keys of the mappings are enum values or lanes."""

    at_s: float | None = None
    modalities: Mapping[str, ModalityMemory] = field(default_factory=dict)
    pool_need: Series | None = None
    cache_hit_ratio: float = 0.0
    corrections: Mapping[str, float] = field(default_factory=dict)  # role -> observed / profile
    margins: Mapping[str, float] = field(default_factory=dict)  # "ttft", "tpot"
    pool_needs: tuple[tuple[float, int], ...] = ()  # (time, need), falling: the shrink window
    shed_ratio: float = 0.0  # what the gateway was last told to turn away
    last_switch_s: Mapping[str, float] = field(default_factory=dict)  # "source>target"
    starts_blocked_until_s: float | None = None
    overloaded_since_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> "PlannerMemory":
        """The memory that `to_json` gave; nothing or another version starts afresh.

        Keys without a value may be missing: Kubernetes keeps no nulls.
        """
        if not data or data.get("version") != VERSION:
            return cls()
        pool_need = data.get("pool_need")
        return cls(
            at_s=data.get("at_s"),
            modalities={
                name: ModalityMemory(
                    rates={key: _series(value) for key, value in item.get("rates", {}).items()},
                    shapes={
                        key: Distribution(**value) for key, value in item.get("shapes", {}).items()
                    },
                )
                for name, item in data.get("modalities", {}).items()
            },
            pool_need=_series(pool_need) if pool_need else None,
            cache_hit_ratio=data.get("cache_hit_ratio", 0.0),
            corrections=dict(data.get("corrections", {})),
            margins=dict(data.get("margins", {})),
            pool_needs=tuple((at_s, need) for at_s, need in data.get("pool_needs", ())),
            shed_ratio=data.get("shed_ratio", 0.0),
            last_switch_s=dict(data.get("last_switch_s", {})),
            starts_blocked_until_s=data.get("starts_blocked_until_s"),
            overloaded_since_s=data.get("overloaded_since_s"),
        )


def _series(data: Mapping[str, Any]) -> Series:
    return Series(
        at_s=data["at_s"],
        level=data["level"],
        slope=data["slope"],
        error2=data["error2"],
        promises=tuple((due, value) for due, value in data["promises"]),
        season=tuple(data["season"]),
    )
