"""This file is about worker pods and the workers in them, joined into one fleet.

A gateway knows workers, the API server knows pods. What both say is joined by the worker's id or
its node's name, either of which is the pod's name, or by the pod's annotation for the node's id.
Pods are also there when the gateway is not: a fleet that can't be asked is taken for what it was,
so that nobody is given up because somebody else is away.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.resources.labels import REVISION
from epidote_operator.resources.pod_notes import HEAD, PodNotes, read_notes
from epidote_operator.status.conditions import unix_time
from epidote_operator.status.fleet import Fleet, FleetWorker, Unplaced
from epidote_planner.lane import SPLIT_ROLES, Lane

BETWEEN_ROLES = (WorkerState.DRAINING, WorkerState.SWITCHING, WorkerState.VERIFYING)
NODE_ID = "epidote.dev/node-id"  # annotation: how the worker's own node is called


@dataclass
class PodFleet:
    """Joins pods and workers; remembers who was on the gateway's list, and since when a worker is
    missing there, or switches without an intent, or stands in for nobody. `head`: the life of the
    head that listens, None while none is known to; see `status.head`."""

    head: str | None = None
    excused: frozenset[str] = frozenset()  # pod uids: if they ended, it was for want of a head
    _listed: set[str] = field(default_factory=set)  # pod uids
    _missing_since: dict[str, float] = field(default_factory=dict)  # by pod uid
    _adrift_since: dict[str, float] = field(default_factory=dict)
    _redundant_since: dict[str, float] = field(default_factory=dict)

    def fleet(
        self,
        pods: Iterable[Mapping[str, Any]],
        report: FleetReport | None,
        now_s: float,
        *,
        revision: str = "",
        message: str = "",
        stages: Collection[Role] = SPLIT_ROLES,
    ) -> Fleet:
        """The fleet now. `report` None: no gateway answered, `message` says why.

        `stages`: the roles that the model needs.
        """
        listed = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
        uids = {pod["metadata"]["uid"] for pod in listed}
        self._listed &= uids
        for kept in (self._missing_since, self._adrift_since, self._redundant_since):
            for uid in kept.keys() - uids:
                del kept[uid]
        reports = list(report.workers) if report is not None else []
        workers = [
            self._worker(pod, report is not None, _find(pod, reports), now_s, revision)
            for pod in listed
        ]
        workers = [
            _without_head(pod, worker, self.head, self.excused)
            for pod, worker in zip(listed, workers, strict=True)
        ]
        return Fleet(
            at_s=now_s,
            is_known=report is not None,
            message=message,
            wanted_workers=None if report is None else report.wanted_workers,
            stages=frozenset(stages),
            workers=tuple(
                self._with_redundancy(pod["metadata"]["uid"], worker, workers, stages, now_s)
                for pod, worker in zip(listed, workers, strict=True)
            ),
        )

    def _with_redundancy(
        self,
        uid: str,
        worker: FleetWorker,
        fleet: Collection[FleetWorker],
        stages: Collection[Role],
        now_s: float,
    ) -> FleetWorker:
        """A worker that stands in, with the time since when every stage but its own has others."""
        others = [other for other in fleet if other is not worker]
        is_routable = worker.state is WorkerState.ROUTABLE and not worker.is_leaving
        if not (worker.stands_in and is_routable) or any(
            role is not worker.lane.role and not any(other.serves_role(role) for other in others)
            for role in stages
        ):
            self._redundant_since.pop(uid, None)
            return worker
        since_s = self._redundant_since.setdefault(uid, now_s)
        return replace(worker, redundant_since_s=since_s)

    def _worker(
        self,
        pod: Mapping[str, Any],
        is_known: bool,
        report: WorkerReport | None,
        now_s: float,
        revision: str,
    ) -> FleetWorker:
        metadata = pod["metadata"]
        created_s = unix_time(metadata["creationTimestamp"])
        notes = read_notes(pod, created_s)
        state, since_s = self._state(pod, notes, is_known, report, now_s, created_s)
        own = (metadata.get("labels") or {}).get(REVISION, "")
        said = Lane(notes.lane.group, report.role) if report else None
        # Whatever became of its notes, a worker without a switch of ours is what it says. One that
        # serves every stage stands in for others: it belongs where it did.
        believed = said is not None and notes.intent is None and state is not WorkerState.STARTING
        stands_in = said is not None and said.role is Role.ALL
        lane = said if believed and said is not None and not stands_in else notes.lane
        return FleetWorker(
            name=metadata["name"],
            worker_id=report.worker_id if report else "",
            lane=lane,
            said=said,
            state=state,
            since_s=since_s,
            epoch=report.epoch if report else (notes.intent.epoch if notes.intent else 0),
            intent=notes.intent,
            is_leaving="deletionTimestamp" in metadata,
            is_labelled=notes.is_labelled and notes.lane == lane,
            is_ready=is_ready(pod),
            adrift_since_s=self._adrift(metadata, notes, report, state, now_s),
            is_outdated=bool(revision and own and own != revision),
            unplaced=unplaced(pod),
            num_running=report.num_running if report else 0,
            num_waiting=report.num_waiting + report.num_encoding if report else 0,
        )

    def _adrift(
        self,
        metadata: Mapping[str, Any],
        notes: PodNotes,
        report: WorkerReport | None,
        state: WorkerState,
        now_s: float,
    ) -> float | None:
        """Since when it is between two roles unasked. A first role (epoch 0) is no switch."""
        switches = report is not None and report.epoch > 0 and state in BETWEEN_ROLES
        if not switches or notes.intent is not None or "deletionTimestamp" in metadata:
            self._adrift_since.pop(metadata["uid"], None)
            return None
        return self._adrift_since.setdefault(metadata["uid"], now_s)

    def _state(
        self,
        pod: Mapping[str, Any],
        notes: PodNotes,
        is_known: bool,
        report: WorkerReport | None,
        now_s: float,
        created_s: float,
    ) -> tuple[WorkerState, float]:
        uid = pod["metadata"]["uid"]
        if pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
            return WorkerState.FAILED, created_s
        if report is not None:
            self._missing_since.pop(uid, None)
            self._listed.add(uid)
            if report.state is WorkerState.STARTING:
                return report.state, created_s
            return report.state, notes.since_s
        if not is_known:  # blind: what served goes on serving, what started has all the time
            if notes.is_labelled and is_ready(pod):
                return WorkerState.ROUTABLE, notes.since_s
            return WorkerState.STARTING, now_s
        missing_s = self._missing_since.setdefault(uid, now_s)
        # Who had joined has the time of a start once more: its register may ask for it again.
        has_joined = uid in self._listed or HEAD in (pod["metadata"].get("annotations") or {})
        never_joined = not has_joined and notes.since_s <= created_s + 1.0
        return WorkerState.STARTING, created_s if never_joined else missing_s


def _without_head(
    pod: Mapping[str, Any], worker: FleetWorker, head: str | None, excused: Collection[str]
) -> FleetWorker:
    """The worker, as one that leaves if it joined another head than `head`, or ended unjoined."""
    joined = (pod["metadata"].get("annotations") or {}).get(HEAD)
    if worker.state is WorkerState.FAILED and pod["metadata"]["uid"] in excused:
        return replace(worker, has_lost_head=True, is_leaving=True)
    if head is None or joined is None or joined == head:
        return worker
    return replace(worker, has_lost_head=True, is_leaving=True, adrift_since_s=None)


def _find(pod: Mapping[str, Any], reports: Iterable[WorkerReport]) -> WorkerReport | None:
    """The worker in a pod. A failed life of the same pod yields to a later one."""
    name = pod["metadata"]["name"]
    node = (pod["metadata"].get("annotations") or {}).get(NODE_ID)
    found = [
        report
        for report in reports
        if report.worker_id == name
        or report.node_id == name
        or (node is not None and report.node_id == node)
    ]
    found.sort(key=lambda report: report.state is WorkerState.FAILED)
    return found[0] if found else None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's condition Ready holds."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions") or []
    )


def unplaced(pod: Mapping[str, Any]) -> Unplaced | None:
    """Why the scheduler has no node for the pod; None: it has one, or has not been looked at."""
    for item in pod.get("status", {}).get("conditions") or []:
        if item["type"] == "PodScheduled" and item["status"] == "False":
            since_s = unix_time(item.get("lastTransitionTime") or _created(pod))
            return Unplaced(since_s=since_s, why=str(item.get("message") or item.get("reason", "")))
    return None


def _created(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["creationTimestamp"])
