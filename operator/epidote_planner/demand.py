"""This file is about what will arrive at the workers: forecast traffic after the response cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from epidote_core.modality import Modality
from epidote_planner.distribution import Distribution
from epidote_planner.forecast import Series, advance, forecast
from epidote_planner.intake import MOST
from epidote_planner.memory import REQUESTS, ModalityMemory, PlannerMemory
from epidote_planner.policy import DemandPolicy
from epidote_planner.snapshot import ClusterSnapshot, ModalityTraffic

SHAPE_SMOOTHING_S = 300.0  # quantiles of a short window are noisy: follow them slowly
CACHE_SMOOTHING_S = 300.0
FIELDS = ("input_tokens", "output_tokens", "images", "image_tokens")


@dataclass(frozen=True, kw_only=True)
class ModalityDemand:
    """Expected arrivals of one modality at the workers."""

    modality: Modality
    rps: float
    input_tokens: Distribution
    output_tokens: Distribution
    images: Distribution
    image_tokens: Distribution


@dataclass(frozen=True, kw_only=True)
class Demand:
    """All modalities, and how much of the front door's traffic the response cache answers."""

    modalities: tuple[ModalityDemand, ...]
    cache_hit_ratio: float
    cache_lost: bool

    @property
    def rps(self) -> float:
        return sum(item.rps for item in self.modalities)


@dataclass(frozen=True, kw_only=True)
class DemandMemory:
    """The part of the planner's memory that `observe` renews."""

    modalities: Mapping[str, ModalityMemory]
    cache_hit_ratio: float


def observe(snapshot: ClusterSnapshot, memory: PlannerMemory, policy: DemandPolicy) -> DemandMemory:
    """Remember this tick's traffic. Windows already seen change nothing.

    A modality that fell silent is followed down to zero: its window reports no arrivals.
    """
    at_s = snapshot.traffic_at_s
    known = dict(memory.modalities)
    if at_s is None:
        return DemandMemory(modalities=known, cache_hit_ratio=memory.cache_hit_ratio)
    seen = {item.modality.value: item for item in snapshot.traffic}
    for name in sorted(known.keys() | seen.keys()):
        known[name] = _follow(known.get(name), seen.get(name), at_s, policy)
    hits = snapshot.cache.response_hit_ratio
    share = 1.0
    if memory.at_s is not None:
        share = 1.0 - exp(-max(0.0, snapshot.now_s - memory.at_s) / CACHE_SMOOTHING_S)
    level = memory.cache_hit_ratio + share * (hits - memory.cache_hit_ratio)
    return DemandMemory(modalities=known, cache_hit_ratio=level)


def expect(
    remembered: DemandMemory, current_hit_ratio: float, *, ahead_s: float, policy: DemandPolicy
) -> Demand:
    """The demand `ahead_s` from now.

    Cache-loss guard: a hit ratio far under its level (a flush) is believed at once, so that the
    requests which the cache no longer answers are planned for before their queues show them.
    """
    level = remembered.cache_hit_ratio
    lost = current_hit_ratio < policy.cache_loss_ratio * level
    hits = current_hit_ratio if lost else level
    modalities = tuple(
        _expected(Modality(name), item, 1.0 - hits, ahead_s, policy)
        for name, item in sorted(remembered.modalities.items())
    )
    return Demand(modalities=modalities, cache_hit_ratio=hits, cache_lost=lost)


def _follow(
    memory: ModalityMemory | None,
    traffic: ModalityTraffic | None,
    at_s: float,
    policy: DemandPolicy,
) -> ModalityMemory:
    rates = dict(memory.rates) if memory else {}
    shapes = dict(memory.shapes) if memory else {}
    last = rates.get(REQUESTS)
    if memory is not None and last is not None and at_s <= last.at_s:
        return memory
    passed = at_s - last.at_s if last else 0.0
    rps = traffic.arrival_rps if traffic else 0.0
    rates[REQUESTS] = _next(last, rps, at_s, policy)
    for name in FIELDS:
        seen: Distribution = getattr(traffic, name) if traffic else Distribution()
        rates[name] = _next(rates.get(name), rps * seen.mean, at_s, policy)
        if rps > 0.0:
            before = shapes.get(name)
            share = 1.0 - exp(-passed / SHAPE_SMOOTHING_S)
            shapes[name] = before.blended(seen, share) if before else seen
    seen_s = memory.seen_s if memory is not None and rps <= 0.0 else at_s
    return ModalityMemory(rates=rates, shapes=shapes, seen_s=at_s if seen_s is None else seen_s)


def _next(series: Series | None, value: float, at_s: float, policy: DemandPolicy) -> Series:
    return advance(series, value, at_s=at_s, ahead_s=0.0, policy=policy)


def _expected(
    modality: Modality,
    memory: ModalityMemory,
    share: float,
    ahead_s: float,
    policy: DemandPolicy,
) -> ModalityDemand:
    """Rates are forecast apart and divided, so a burst of images shows as more images each.

    A modality that has been silent for long has no demand: what smoothing leaves of it would keep
    a worker of its own for hours.
    """
    requests = memory.rates[REQUESTS]
    rps = forecast(requests, ahead_s=ahead_s, policy=policy)
    if memory.seen_s is not None and requests.at_s - memory.seen_s >= policy.silence_s:
        rps = 0.0
    shapes = {}
    for name in FIELDS:
        series = memory.rates.get(name)
        per_s = forecast(series, ahead_s=ahead_s, policy=policy) if series is not None else 0.0
        shape = memory.shapes.get(name, Distribution())
        shapes[name] = shape.scaled_to(min(MOST, per_s / rps)) if rps > 0.0 else shape
    return ModalityDemand(modality=modality, rps=rps * share, **shapes)
