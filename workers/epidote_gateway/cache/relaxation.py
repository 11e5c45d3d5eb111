"""This file is about thresholds and lifetimes as they are now: under pressure, and after reports.

    threshold' = max(min(floor, threshold), threshold - step · pressure)
    ttl'       = min(max ttl, ttl · (1 + stretch · pressure))

as `algorithms.md` 1d.5 reconstructs arXiv 2510.26835. The pressure is the planner's advice, 0 to 1.
It must last before it counts, and be gone for longer before it stops counting: relaxing relieves
the fleet, so an impatient cache would let go, be pressed again, and flicker. While pressure counts
it is never taken for less than the value that let it in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epidote_gateway.cache.policy import CachePolicy, CategorySpec

SIGNAL_LIFE_S = 60.0  # several ticks: a planner that says nothing for so long is gone


Report = tuple[str, str, str]  # category, the threshold that was too low, tenant ("": for all)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a category's hits must meet. `plain_…` is without any relaxation."""

    threshold: float
    plain_threshold: float
    ttl_s: float
    plain_ttl_s: float


class Relaxation:
    """Holds the pressure signal and what reports of wrong hits added. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._signal = 0.0
        self._told_s = float("-inf")
        self._since_s: float | None = None  # the signal contradicts the state
        self.is_relaxed = False
        self._tightening: dict[Report, float] = {}
        self.unsent: dict[Report, float] = {}  # for the store; see `sharing`
        self.void: set[Report] = set()  # to be removed from it

    def tell(self, pressure: float, policy: CachePolicy) -> None:
        """The planner's signal, in [0, 1]."""
        if not 0.0 <= pressure <= 1.0:
            raise ValueError(f"pressure: must be between 0 and 1, got {pressure!r}")
        self._step(policy)  # with the signal that was in force until now
        self._signal, self._told_s = pressure, self._clock()
        self._step(policy)

    def pressure(self, policy: CachePolicy) -> float:
        """What counts now: 0.0 unless relaxed."""
        self._step(policy)
        return max(self._current(), policy.pressure.enter) if self.is_relaxed else 0.0

    def signal(self) -> float:
        """What was told last, 0.0 if too long ago."""
        return self._current()

    def _current(self) -> float:
        fresh = self._clock() - self._told_s <= SIGNAL_LIFE_S
        return self._signal if fresh else 0.0

    def _step(self, policy: CachePolicy) -> None:
        """Change state once the signal has contradicted it for long enough."""
        spec, now_s = policy.pressure, self._clock()
        current = self._current()
        contradicts = current <= spec.leave if self.is_relaxed else current >= spec.enter
        if not contradicts:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = now_s
        lasting_s = spec.release_seconds if self.is_relaxed else spec.hold_seconds
        if now_s - self._since_s >= lasting_s:
            self.is_relaxed = not self.is_relaxed
            self._since_s = None

    def report(self, category: CategorySpec, policy: CachePolicy, tenant: str) -> None:
        """A hit of this category was wrong: tighten it for `tenant`, or "" for all."""
        report = _report(category, tenant)
        added = self._tightening.get(report, 0.0) + policy.feedback.tighten_step
        self._tightening[report] = min(policy.feedback.max_tightening, added)
        self.unsent[report] = self.unsent.get(report, 0.0) + policy.feedback.tighten_step
        self.void.discard(report)

    def take(self, reports: Mapping[Report, float]) -> None:
        """What the store knows. Never less than what was reported here and is not there yet."""
        for report, added in reports.items():
            if report not in self.void:
                self._tightening[report] = max(added, self._tightening.get(report, 0.0))

    def forget_other_thresholds(self, policy: CachePolicy) -> None:
        """A new threshold was chosen knowing the reports about the old one."""
        for report in list(self._tightening):
            if report != _report(policy.category(report[0]), report[2]):
                del self._tightening[report]
                self.unsent.pop(report, None)
                self.void.add(report)

    def tightening(self, category: CategorySpec, policy: CachePolicy, tenant: str = "") -> float:
        """What reports add to the category's threshold for `tenant`."""
        added = self._tightening.get(_report(category, ""), 0.0)
        if tenant:
            added += self._tightening.get(_report(category, tenant), 0.0)
        return min(policy.feedback.max_tightening, added)

    def bounds(self, category: CategorySpec, policy: CachePolicy, tenant: str = "") -> Bounds:
        """What hits of `category` must meet now."""
        pressure = self.pressure(policy)
        load = category.load_adaptation
        plain = min(1.0, category.threshold + self.tightening(category, policy, tenant))
        floor = min(plain, load.threshold_floor)
        stretched = category.ttl_seconds * (1.0 + load.ttl_stretch * pressure)
        return Bounds(
            threshold=max(floor, plain - load.threshold_step * pressure),
            plain_threshold=plain,
            ttl_s=max(category.ttl_seconds, min(load.max_ttl_seconds, stretched)),
            plain_ttl_s=category.ttl_seconds,
        )


def _report(category: CategorySpec, tenant: str) -> Report:
    return category.name, f"{category.threshold:.6f}", tenant
