"""This file is about acting on a fleet whose pods KubeRay makes: it is told how many, and whom not.

Everything else, roles and drains among it, is done to its pods as to our own.
Source: KubeRay's ray.io/v1 API, `replicas` and `scaleStrategy.workersToDelete` of a worker group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.act.hands import CannotAct
from epidote_operator.act.kubernetes_hands import KubernetesHands
from epidote_operator.kube import paths
from epidote_operator.resources.kuberay import API_VERSION, PLURAL
from epidote_operator.resources.labels import REVISION, SERVICE
from epidote_operator.status.fleet import FleetWorker
from epidote_planner.lane import Lane


@dataclass(frozen=True, kw_only=True)
class KubeRayHands(KubernetesHands):
    """Hands on the RayCluster `cluster` and its pods, those of `revision`.

    The number is counted from the pods each time: an operator that forgets that it asked for one
    asks for the same number again.
    """

    cluster: str
    revision: str
    _added: list[Lane] = field(default_factory=list)  # in this tick
    _victims: list[str] = field(default_factory=list)

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        """Raise the number of workers. Which pod becomes what is assigned when it is there."""
        room = count
        if self.max_pods is not None:
            room = min(count, max(0, self.max_pods - len(self.pods) - len(self._added)))
        if room:
            self._added.extend([lane] * room)
            await self._tell()
        return room

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        """Lower the number and name the pod; its own grace is the drain's time."""
        self._victims.append(worker.name)
        await self._tell()
        if not drain:
            await super().remove_worker(worker, drain=False)

    async def _tell(self) -> None:
        """One conditional patch: whoever changed the object meanwhile is heard at the next tick."""
        path = paths.item(API_VERSION, PLURAL, self.namespace, self.cluster)
        found = await self.api.get(path)
        if found is None:
            raise CannotAct(f"RayCluster {self.cluster!r} is not there yet")
        if (found["metadata"].get("labels") or {}).get(SERVICE) != self.service:
            raise CannotAct(f"RayCluster {self.cluster!r} is somebody else's; it is left alone")
        staying = staying_pods(self.pods, self.revision) - set(self._victims)
        first, *others = found["spec"]["workerGroupSpecs"]
        group = {
            **first,
            "replicas": len(staying) + len(self._added),
            "scaleStrategy": {"workersToDelete": list(self._victims)},
        }
        body = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "spec": {"workerGroupSpecs": [group, *others]},
        }
        await self.api.merge(path, body)


def staying_pods(pods: Mapping[str, Mapping[str, Any]], revision: str) -> set[str]:
    """Names of a revision's pods that nobody deletes; `pods` by name."""
    return {
        name
        for name, pod in pods.items()
        if "deletionTimestamp" not in pod["metadata"]
        and (pod["metadata"].get("labels") or {}).get(REVISION) == revision
    }
