"""This file is about what the planner remembers between ticks, as values that survive JSON.

It is written into the resource's status, so a process killed between two ticks changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
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

    def as_of(self, now_s: float) -> "PlannerMemory":
        """This memory on a clock that stands at `now_s`.

        After a step back of the clock every time moves by the step, so that ages stay; a series
        that alone is ahead starts again at `now_s`. Otherwise nothing new would be believed until
        the clock had caught up.
        """
        step_s = min(0.0, now_s - self.at_s) if self.at_s is not None else 0.0
        series = [item for known in self.modalities.values() for item in known.rates.values()]
        series += [self.pool_need] if self.pool_need else []
        if step_s == 0.0 and all(item.at_s <= now_s for item in series):
            return self
        blocked, overloaded = self.starts_blocked_until_s, self.overloaded_since_s
        return replace(
            self,
            at_s=None if self.at_s is None else self.at_s + step_s,
            modalities={
                name: replace(
                    known,
                    rates={key: item.moved(step_s, now_s) for key, item in known.rates.items()},
                )
                for name, known in self.modalities.items()
            },
            pool_need=self.pool_need.moved(step_s, now_s) if self.pool_need else None,
            pool_needs=tuple((at_s + step_s, need) for at_s, need in self.pool_needs),
            last_switch_s={name: at_s + step_s for name, at_s in self.last_switch_s.items()},
            starts_blocked_until_s=None if blocked is None else blocked + step_s,
            overloaded_since_s=None if overloaded is None else overloaded + step_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> "PlannerMemory":
        """The memory that `to_json` gave; nothing, another version or a NaN starts afresh.

        Keys without a value may be missing: Kubernetes keeps no nulls.
        """
        if not data or data.get("version") != VERSION or not _is_finite(data):
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


def _is_finite(data: object) -> bool:
    if isinstance(data, Mapping):
        return all(_is_finite(value) for value in data.values())
    if isinstance(data, list | tuple):
        return all(_is_finite(value) for value in data)
    return not isinstance(data, float) or isfinite(data)


def _series(data: Mapping[str, Any]) -> Series:
    return Series(
        at_s=data["at_s"],
        level=data["level"],
        slope=data["slope"],
        error2=data["error2"],
        promises=tuple((due, value) for due, value in data["promises"]),
        season=tuple(data["season"]),
    )
