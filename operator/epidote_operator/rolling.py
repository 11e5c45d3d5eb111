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
from epidote_operator.observe.pods import is_ready
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
from epidote_operator.status.conditions import timestamp, unix_time
from epidote_operator.status.fleet import Fleet
from epidote_operator.status.rollout import (
    RolloutMove,
    RolloutStep,
    next_move,
    no_room,
    progress,
    waits_for,
)
from epidote_planner.decision import AddWorkers
from epidote_planner.lane import Lane

Pod = Mapping[str, Any]
SHIFT_GRACE_S = 5.0  # nodes' proxies and ingresses hear of new endpoints a little after us


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
    gateways: Collection[Pod]  # of the new revision
    head_trouble: str = ""  # why the new revision's head does not come up

    @property
    def room(self) -> int:
        """Workers that may be started now; pods of both revisions count until they are gone."""
        most = self.hands_new.max_pods
        return 1_000_000 if most is None else max(0, most - len(self.hands_new.pods))

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
            wanted=wanted,
            ready=new.ready().total(),
            old=len(old.workers),
            deadline_s=self.deadline_s,
            now_s=now_s,
            leaves_s=float(self.hands_old.grace_s) if len(old.staying) < len(old.workers) else 0.0,
        )
        await self._give_up(status, new)
        # Labels of new workers that came up in another role are put right.
        executor = Executor(self.hands_new, drain_deadline_s=float(self.hands_new.grace_s))
        surge = 0 if status.failed else self.surge
        full = "" if status.failed else no_room(new, unix_time(status.progressed_at))
        move = next_move(old, new, wanted, surge=surge, room=self.room, full=full)
        if move.step is RolloutStep.SHIFT and (why := self._gateways_miss()):
            move = RolloutMove(step=RolloutStep.WAIT, why=why)
        status = status.model_copy(
            update={"message": move.why or self.head_trouble or waits_for(new) or None}
        )
        starts: tuple[AddWorkers, ...] = ()
        if move.step is RolloutStep.START and move.lane is not None:
            starts = (AddWorkers(lane=move.lane, count=move.count),)
        await executor.run(starts, new)
        if move.step is RolloutStep.RETIRE and move.worker is not None:
            await self.hands_old.remove_worker(move.worker, drain=True)
        if move.step is RolloutStep.SHIFT:
            await apply_all(self.api, [gateway_service(self.values)])
            done = {"shifted": True, "progressed_at": timestamp(now_s)}
            status = status.model_copy(update=done)
        return move, status

    def _gateways_miss(self) -> str:
        """Why clients can't move yet: a Service leads to pods that the kubelet has found ready, and
        answering us is not that. "": they can."""
        staying = [pod for pod in self.gateways if "deletionTimestamp" not in pod["metadata"]]
        num_ready, wanted = sum(map(is_ready, staying)), self.values.spec.gateway.replicas
        return "" if num_ready >= wanted else f"{num_ready} of {wanted} new gateways are ready"

    async def complete(
        self,
        fleet: Fleet,
        wanted: Mapping[Lane, int],
        before: RolloutStatus,
        now_s: float,
    ) -> RolloutStatus | None:
        """After the shift, or where the change was taken back: start who is missing still.

        None: nobody is.
        """
        ready = fleet.ready()
        num_old = len(self.hands_new.pods) - len(fleet.workers)
        if fleet.is_known and all(ready[lane] >= count for lane, count in wanted.items()):
            return None
        status = progress(
            before,
            revision=self.values.revision,
            wanted=wanted,
            ready=ready.total(),
            old=max(0, num_old),
            deadline_s=self.deadline_s,
            now_s=now_s,
            shifted=True,
        )
        await self._give_up(status, fleet)
        nobody, surge = Fleet(at_s=now_s), 0 if status.failed else self.surge
        move = next_move(nobody, fleet, wanted, surge=surge, room=self.room)
        if move.step is RolloutStep.START and move.lane is not None:
            await self.hands_new.add_workers(move.lane, move.count, now_s)
        return status

    async def _give_up(self, status: RolloutStatus, new: Fleet) -> None:
        """Workers that ended make room for others, after a while; with the rollout's failure all
        that never came up leave."""
        fresh_s = new.at_s - self.values.spec.scaling.start_backoff_seconds
        for worker in new.staying:
            never_came = worker.state is WorkerState.STARTING and status.failed
            has_ended = worker.state is WorkerState.FAILED
            if never_came or (has_ended and (status.failed or worker.since_s <= fresh_s)):
                await self.hands_new.remove_worker(worker, drain=False)


async def clean_up(
    api: KubeApi,
    values: FleetValues,
    workers: Collection[Pod],
    gateways: Collection[Pod],
    *,
    keep: Collection[str],
    ends_gateways: bool,
    looks: bool,
) -> bool:
    """Take away what is left of revisions other than `keep`; True while something is, or may be.

    Gateways first: they end their streams, for which they need their workers. Pods may be gone
    before their owners are: `looks` asks the API server for those as well. `ends_gateways` is false
    while clients may not have heard of the new ones (`SHIFT_GRACE_S`).
    """
    old_gateways = [pod for pod in gateways if revision_of_pod(pod) not in keep]
    old_workers = [pod for pod in workers if revision_of_pod(pod) not in keep]
    if not old_gateways and not old_workers and not looks:
        return False
    others = f"{SERVICE}={values.name},{REVISION},{REVISION} notin ({','.join(sorted(keep))})"
    deployments = paths.collection("apps/v1", "deployments", values.namespace)
    if old_gateways:
        if not ends_gateways:
            return True
        only = f"{others},{COMPONENT}={Component.GATEWAY.value}"
        await _delete_ours(api, deployments, only, values.uid)
        return True
    found = 0
    if values.spec.cluster.provider is Provider.KUBERAY:  # it would replace the pods
        clusters = paths.collection(RAY_API, RAY_CLUSTERS, values.namespace)
        found += await _delete_ours(api, clusters, others, values.uid)
    for pod in old_workers:
        if "deletionTimestamp" not in pod["metadata"]:
            path = paths.pod(values.namespace, pod["metadata"]["name"])
            await api.delete(path, uid=pod["metadata"]["uid"])
    if all("deletionTimestamp" in pod["metadata"] for pod in old_workers):
        found += await _delete_ours(api, deployments, others, values.uid)
        services = paths.collection("v1", "services", values.namespace)
        found += await _delete_ours(api, services, others, values.uid)
    return bool(old_workers or found)


async def _delete_ours(api: KubeApi, collection: str, label_selector: str, uid: str) -> int:
    """Delete what the service owns among the objects with these labels; how many there were."""
    listed = await api.request("GET", collection, params={"labelSelector": label_selector})
    ours = [
        item["metadata"]
        for item in listed["items"]
        if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences") or ())
    ]
    for metadata in ours:
        await api.delete(f"{collection}/{metadata['name']}", uid=metadata["uid"])
    return len(ours)
