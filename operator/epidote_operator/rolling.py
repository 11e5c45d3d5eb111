"""This file is about carrying a rollout out: two revisions of a service side by side."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from epidote_core.roles import WorkerState
from epidote_operator.act.executor import Executor
from epidote_operator.act.kubernetes_hands import KubernetesHands
from epidote_operator.act.objects import apply_all
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.resources.fleet_values import Fleet as FleetValues
from epidote_operator.resources.head import gateway_service
from epidote_operator.resources.kuberay import API_VERSION as RAY_API
from epidote_operator.resources.kuberay import PLURAL as RAY_CLUSTERS
from epidote_operator.resources.labels import (
    COMPONENT,
    REVISION,
    SERVICE,
    Component,
)
from epidote_operator.spec.cluster import Provider
from epidote_operator.spec.service_status import RolloutStatus
from epidote_operator.status.fleet import Fleet
from epidote_operator.status.rollout import RolloutMove, RolloutStep, next_move, progress
from epidote_planner.decision import AddWorkers
from epidote_planner.lane import Lane

Pod = Mapping[str, Any]


def revision_of_pod(pod: Pod) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION, ""))


def of_revision(pods: Collection[Pod], revision: str) -> list[Pod]:
    """The pods of one revision."""
    return [pod for pod in pods if revision_of_pod(pod) == revision]


@dataclass(frozen=True, kw_only=True)
class Rolling:
    """One tick of a rollout. `hands_old` and `hands_new` act on either revision."""

    api: KubeApi
    values: FleetValues  # of the new revision
    hands_old: KubernetesHands
    hands_new: KubernetesHands
    surge: int
    deadline_s: float  # without progress

    async def step(
        self,
        old: Fleet,
        new: Fleet,
        wanted: Mapping[Lane, int],
        before: RolloutStatus | None,
        now_s: float,
    ) -> tuple[RolloutMove, RolloutStatus]:
        """Take the next step; SHIFT has been carried out when it is returned."""
        status = progress(
            before,
            revision=self.values.revision,
            ready=new.ready().total(),
            old=len(old.staying),
            deadline_s=self.deadline_s,
            now_s=now_s,
        )
        if status.failed:
            for worker in new.staying:
                if worker.state is WorkerState.STARTING:
                    await self.hands_new.remove_worker(worker, drain=False)
        most = self.hands_new.max_pods
        room = 1_000_000 if most is None else most - len(old.workers) - len(new.workers)
        # Labels of new workers that came up in another role are put right.
        executor = Executor(self.hands_new, drain_deadline_s=float(self.hands_new.grace_s))
        surge = 0 if status.failed else self.surge
        move = next_move(old, new, wanted, surge=surge, room=max(0, room))
        starts: tuple[AddWorkers, ...] = ()
        if move.step is RolloutStep.START and move.lane is not None:
            starts = (AddWorkers(lane=move.lane, count=move.count),)
        await executor.run(starts, new)
        if move.step is RolloutStep.RETIRE and move.worker is not None:
            await self.hands_old.remove_worker(move.worker, drain=True)
        if move.step is RolloutStep.SHIFT:
            await apply_all(self.api, [gateway_service(self.values)])
        return move, status


async def clean_up(
    api: KubeApi, values: FleetValues, workers: Collection[Pod], gateways: Collection[Pod]
) -> bool:
    """Take away what is left of other revisions; True while something is.

    Gateways first: they end their streams, for which they need their workers.
    """
    old_gateways = [pod for pod in gateways if revision_of_pod(pod) != values.revision]
    old_workers = [pod for pod in workers if revision_of_pod(pod) != values.revision]
    if not old_gateways and not old_workers:
        return False
    others = f"{SERVICE}={values.name},{REVISION}!={values.revision},{REVISION}"
    deployments = paths.collection("apps/v1", "deployments", values.namespace)
    kuberay = values.spec.cluster.provider is Provider.KUBERAY
    clusters = paths.collection(RAY_API, RAY_CLUSTERS, values.namespace)
    if old_gateways:
        only = f"{others},{COMPONENT}={Component.GATEWAY.value}"
        await api.delete_all(deployments, only)
        return True
    if kuberay:  # it would replace the pods
        await api.delete_all(clusters, others)
    for pod in old_workers:
        if "deletionTimestamp" not in pod["metadata"]:
            path = paths.pod(values.namespace, pod["metadata"]["name"])
            await api.delete(path, uid=pod["metadata"]["uid"])
    if all("deletionTimestamp" in pod["metadata"] for pod in old_workers):
        await api.delete_all(deployments, others)
        services = paths.collection("v1", "services", values.namespace)
        listed = await api.request("GET", services, params={"labelSelector": others})
        for service in listed["items"]:  # old servers can't delete Services by label
            await api.delete(f"{services}/{service['metadata']['name']}")
    return True
