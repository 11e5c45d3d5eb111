"""This file is about what one operator process keeps of a service: nothing that matters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from epidote_operator.act.head_loss import HeadMemory
from epidote_operator.act.keeping import KeptObjects
from epidote_operator.act.kubernetes_hands import Asked
from epidote_operator.kube.api import Manifest
from epidote_operator.observe.cluster_observer import ServiceMemory
from epidote_operator.observe.prometheus import PrometheusSource
from epidote_operator.resources.labels import Component
from epidote_planner import PlannerMemory


class PodSource(Protocol):
    """Pods of one part of a service, from memory."""

    def __call__(
        self, namespace: str, service: str, component: Component
    ) -> Collection[Mapping[str, Any]]: ...


@dataclass
class ServiceState:
    """What one operator process keeps of one service. A new one starts with an empty one."""

    memory: ServiceMemory = field(default_factory=ServiceMemory)
    asked: Asked = field(default_factory=Asked)
    kept: KeptObjects = field(default_factory=KeptObjects)
    planner: PlannerMemory = field(default_factory=PlannerMemory)  # may be newer than the status'
    prometheus: PrometheusSource | None = None
    next_memory: ServiceMemory = field(default_factory=ServiceMemory)  # of a new revision
    next_asked: Asked = field(default_factory=Asked)
    told_policy: dict[str, str] = field(default_factory=dict)  # digests by gateway
    taken_back: set[str] = field(default_factory=set)  # uids of pods that were orphans
    swept: tuple[set[str], float] = (set(), 0.0)  # revisions that alone are there, look again when
    shifted: tuple[str, float] = ("", 0.0)  # the revision that clients reach, seen since
    heads: HeadMemory = field(default_factory=HeadMemory)
    latest: Manifest | None = None  # the resource as our last patch left it

    def follow_source(self, made: PrometheusSource | None) -> PrometheusSource | None:
        """The source that the spec names, kept over ticks as long as it is the same."""
        known = self.prometheus
        is_same = made and known and (made.url, made.window_s) == (known.url, known.window_s)
        if not is_same:
            self.prometheus = made
        return self.prometheus

    async def aclose(self) -> None:
        for asked, memory in ((self.asked, self.memory), (self.next_asked, self.next_memory)):
            await asked.aclose()
            await memory.gateways.aclose()
