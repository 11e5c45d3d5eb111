"""This file is about what the planner remembers between ticks, as values that survive JSON.

It is written into the resource's status, so a process killed between two ticks changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from epidote_core.modality import Modality
from epidote_planner.distribution import Distribution
from epidote_planner.forecast import Series
from epidote_planner.json_reader import (
    a_distribution,
    a_mapping,
    a_number,
    a_series,
    a_time,
    numbers,
    pairs,
)

VERSION = 1
REQUESTS = "requests"  # the one rate that every modality has
LEAST_CORRECTION = 1e-3  # observed / profiled time: a step that takes none is a spoilt figure


@dataclass(frozen=True, kw_only=True)
class ModalityMemory:
    """Smoothed arrivals of one modality. `rates`: per second; `shapes`: per request."""

    rates: Mapping[str, Series] = field(default_factory=dict)
    shapes: Mapping[str, Distribution] = field(default_factory=dict)
    seen_s: float | None = None  # when the last request of the modality was seen


@dataclass(frozen=True, kw_only=True)
class PlannerMemory:
    """Everything that one tick tells the next. Keys of the mappings are enum values or lanes.

    `unreadable`: why what was stored could not be read, so that this memory is a fresh start. It is
    told in the next plan's trace and not stored.
    """

    at_s: float | None = None
    modalities: Mapping[str, ModalityMemory] = field(default_factory=dict)
    pool_need: Series | None = None
    pool_steady: Series | None = None  # the pool's need, smoothed for longer
    cache_hit_ratio: float = 0.0
    corrections: Mapping[str, float] = field(default_factory=dict)  # role -> observed / profile
    margins: Mapping[str, float] = field(default_factory=dict)  # "ttft", "tpot"
    pool_needs: tuple[tuple[float, int], ...] = ()  # (time, need), falling: the shrink window
    shed_ratio: float = 0.0  # what the gateway was last told to turn away
    last_switch_s: Mapping[str, float] = field(default_factory=dict)  # "source>target"
    starts_blocked_until_s: float | None = None
    overloaded_since_s: float | None = None
    unreadable: str = field(default="", compare=False)

    def as_of(self, now_s: float) -> "PlannerMemory":
        """This memory on a clock that stands at `now_s`.

        After a step back of the clock every time moves by the step, so that ages stay; a series
        that alone is ahead starts again at `now_s`. Otherwise nothing new would be believed until
        the clock had caught up.
        """
        step_s = min(0.0, now_s - self.at_s) if self.at_s is not None else 0.0
        series = [item for known in self.modalities.values() for item in known.rates.values()]
        series += [item for item in (self.pool_need, self.pool_steady) if item]
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
                    seen_s=None if known.seen_s is None else min(now_s, known.seen_s + step_s),
                )
                for name, known in self.modalities.items()
            },
            pool_need=self.pool_need.moved(step_s, now_s) if self.pool_need else None,
            pool_steady=self.pool_steady.moved(step_s, now_s) if self.pool_steady else None,
            pool_needs=tuple((at_s + step_s, need) for at_s, need in self.pool_needs),
            last_switch_s={name: at_s + step_s for name, at_s in self.last_switch_s.items()},
            starts_blocked_until_s=None if blocked is None else blocked + step_s,
            overloaded_since_s=None if overloaded is None else overloaded + step_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        kept = asdict(self)
        del kept["unreadable"]
        return {"version": VERSION, **kept}

    @classmethod
    def from_json(cls, data: object) -> "PlannerMemory":
        """The memory that `to_json` gave; nothing starts afresh, and so does what cannot be read.

        Raises nothing: somebody may have edited the status, and a planner that stops is worse than
        one that learns anew. Keys without a value may be missing: Kubernetes keeps no nulls.
        """
        if data is None or data == {}:
            return cls()
        try:
            return _read(a_mapping(data, "memory"))
        except ValueError as error:
            return cls(unreadable=str(error))


def _read(data: Mapping[str, Any]) -> PlannerMemory:
    if data.get("version") != VERSION:
        raise ValueError(f"version: want {VERSION}, got {data.get('version')!r:.60}")
    pool_need, pool_steady = data.get("pool_need"), data.get("pool_steady")
    pool_needs = pairs(data.get("pool_needs", ()), "pool_needs")
    return PlannerMemory(
        at_s=a_time(data.get("at_s"), "at_s"),
        modalities={
            Modality(name).value: _modality(item, f"modalities.{name}")
            for name, item in a_mapping(data.get("modalities", {}), "modalities").items()
        },
        pool_need=a_series(pool_need, "pool_need") if pool_need is not None else None,
        pool_steady=a_series(pool_steady, "pool_steady") if pool_steady is not None else None,
        cache_hit_ratio=_ratio(data, "cache_hit_ratio"),
        corrections=numbers(data.get("corrections"), "corrections", least=LEAST_CORRECTION),
        margins=numbers(data.get("margins"), "margins", least=-0.99),  # demand stays over 0
        pool_needs=tuple((at_s, int(need)) for at_s, need in pool_needs),
        shed_ratio=_ratio(data, "shed_ratio"),
        last_switch_s=numbers(data.get("last_switch_s"), "last_switch_s"),
        starts_blocked_until_s=a_time(data.get("starts_blocked_until_s"), "starts_blocked_until_s"),
        overloaded_since_s=a_time(data.get("overloaded_since_s"), "overloaded_since_s"),
    )


def _ratio(data: Mapping[str, Any], name: str) -> float:
    return a_number(data.get(name, 0.0), name, least=0.0, most=1.0)


def _modality(data: object, path: str) -> ModalityMemory:
    item = a_mapping(data, path)
    rates = a_mapping(item.get("rates", {}), f"{path}.rates")
    if REQUESTS not in rates:
        raise ValueError(f"{path}.rates.{REQUESTS}: want a series, got nothing")
    shapes = a_mapping(item.get("shapes", {}), f"{path}.shapes")
    return ModalityMemory(
        rates={key: a_series(value, f"{path}.rates.{key}") for key, value in rates.items()},
        shapes={
            key: a_distribution(value, f"{path}.shapes.{key}") for key, value in shapes.items()
        },
        seen_s=a_time(item.get("seen_s"), f"{path}.seen_s"),
    )
