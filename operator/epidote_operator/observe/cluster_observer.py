"""This file is about looking at one service in a cluster: its pods, and what its gateways say."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_operator.observe.experts import NOTHING, TIME_RATIO, ExpertWatch
from epidote_operator.observe.gateways import Gateways
from epidote_operator.observe.observation import Observation
from epidote_operator.observe.pods import PodFleet
from epidote_operator.observe.prometheus import PrometheusSource
from epidote_operator.observe.signals import role_signals
from epidote_operator.observe.window import MetricsWindow
from epidote_operator.resources.commands import HTTP_PORT
from epidote_operator.resources.labels import HEAD_CHANGES
from epidote_planner.lane import SPLIT_ROLES

Pod = Mapping[str, Any]


@dataclass
class ServiceMemory:
    """What the observer keeps of one service between ticks. Losing it costs one tick's hold."""

    gateways: Gateways = field(default_factory=Gateways)
    pods: PodFleet = field(default_factory=PodFleet)
    window: MetricsWindow = field(default_factory=MetricsWindow)
    experts: ExpertWatch = field(default_factory=ExpertWatch)


@dataclass(frozen=True, kw_only=True)
class ClusterObserver:
    """An `Observer` for one tick: the pods are those that an index has in memory.

    `prometheus`: traffic is read from there, and the gateways tell about workers alone. `stages`:
    the roles that the model needs. `expert_time_ratio`: experts' share of a decode step.
    """

    memory: ServiceMemory
    workers: Collection[Pod]
    gateways: Collection[Pod]
    admin_key: str | None
    revision: str
    prometheus: PrometheusSource | None = None
    stages: Collection[Role] = SPLIT_ROLES
    expert_time_ratio: float = TIME_RATIO

    async def look(self, slos: Mapping[Modality, Slo], now_s: float) -> Observation:
        memory = self.memory
        await memory.gateways.follow(gateway_urls(self.gateways), self.admin_key)
        report, gateway, message = await memory.gateways.fleet(now_s)
        experts = NOTHING
        if report is not None and gateway is not None:
            experts = await memory.experts.look(
                gateway, report, now_s, time_ratio=self.expert_time_ratio
            )
        if self.prometheus is not None:
            traffic = await self.prometheus.read(slos, now_s)
        else:
            memory.window.add(await memory.gateways.scrape(now_s), now_s)
            traffic = memory.window.read(slos, now_s)
        return Observation(
            fleet=memory.pods.fleet(
                self.workers,
                report,
                now_s,
                revision=self.revision,
                message=message,
                stages=self.stages,
            ),
            traffic=traffic,
            signals=role_signals(report) if report is not None else {},
            experts=experts.load,
            experts_placed=experts.placed,
        )


def gateway_urls(pods: Collection[Pod]) -> list[str]:
    """Addresses of the gateways that run, ready or not: one that isn't tells why.

    First those that came up for the latest head: others may know a fleet that is no more.
    """
    found = []
    for pod in sorted(pods, key=_by_head):
        status = pod.get("status", {})
        if status.get("phase") != "Running" or "deletionTimestamp" in pod["metadata"]:
            continue
        if address := status.get("podIP"):
            host = f"[{address}]" if ":" in address else address
            found.append(f"http://{host}:{HTTP_PORT}")
    return found


def _by_head(pod: Pod) -> tuple[int, str]:
    changes = str((pod["metadata"].get("annotations") or {}).get(HEAD_CHANGES, "0"))
    return -int(changes) if changes.isdigit() else 0, str(pod["metadata"]["name"])
