"""This file is about the workers of a head that is no more: known by a note, replaced, taken away.

A worker's pod is told whose it is (`epidote.dev/head`) when the fleet first lists it. With another
head there it counts as leaving: others are started at once, for the new head. It goes on serving
what it has, as long as Ray lets it; its pod is deleted when it has ended, when the GPU budget needs
its place, or after a minute.

Gateways are a Deployment: its template names the change of heads, so that new ones come up, and the
old ones go when those are ready.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from epidote_core.roles import WorkerState
from epidote_operator.act.kubernetes_hands import KubernetesHands
from epidote_operator.kube import paths
from epidote_operator.kube.errors import Conflict
from epidote_operator.resources.fleet_values import Fleet as FleetValues
from epidote_operator.resources.pod_notes import HEAD
from epidote_operator.spec.cluster import Provider
from epidote_operator.spec.service_status import HeadStatus
from epidote_operator.status.fleet import Fleet
from epidote_operator.status.head import HeadLook, followed, head_life, head_trouble
from epidote_operator.status.news import WARNING, News

LINGER_S = 60.0  # Ray ends a node that the new head does not know within so long
LAST_S = 10  # grace of a worker that would have nobody to hand its work to


@dataclass
class HeadMemory:
    """What one operator process keeps: notes on their way, and since when workers are lost."""

    noted: set[tuple[str, str]] = field(default_factory=set)  # pod uid, life
    doubted: set[str] = field(default_factory=set)  # uids: they may have begun to join a former one
    lost_since: dict[str, float] = field(default_factory=dict)  # by pod uid


def look_at_head(
    before: HeadStatus | None,
    fleet: FleetValues,
    pods: Collection[Mapping[str, Any]],
    revision: str,
    workers: Collection[Mapping[str, Any]],
    memory: HeadMemory,
) -> HeadLook:
    """Of `revision`, which serves. KubeRay looks after its own: there nothing is known."""
    if fleet.spec.cluster.provider is Provider.KUBERAY:
        return followed(before, revision, None, joined=())
    notes = [(pod["metadata"].get("annotations") or {}).get(HEAD) for pod in workers]
    joined = {*filter(None, notes), *(life for _, life in memory.noted)}
    return followed(before, revision, head_life(pods), joined=joined, trouble=head_trouble(pods))


def excused(
    memory: HeadMemory, head: HeadLook, workers: Collection[Mapping[str, Any]]
) -> frozenset[str]:
    """Uids of pods whose end would be no failure of their own: no head, or not the one they met."""
    uids = {pod["metadata"]["uid"] for pod in workers}
    memory.doubted = uids if head.is_first else memory.doubted & uids
    return frozenset(uids if head.trouble else memory.doubted)


async def follow_head(
    hands: KubernetesHands, fleet: Fleet, memory: HeadMemory, head: HeadLook, *, wanted: int
) -> tuple[News, ...]:
    """One tick. `wanted`: workers, all told. Returns what people should hear of.

    Raises:
        KubeError: the next tick goes on.
    """
    await _note(hands, fleet, memory, head)
    await _take_away_lost(hands, fleet, memory, wanted)
    if head.former is None:
        return ()
    told = "Ray's head is another one, which knows nobody: workers and gateways are replaced"
    return (News(kind=WARNING, reason="HeadReplaced", message=told),)


async def _note(hands: KubernetesHands, fleet: Fleet, memory: HeadMemory, head: HeadLook) -> None:
    """Note on workers' pods whose they are, once for each.

    A worker that had not come up when the head became another one may have joined the former: it
    is taken for the former's, which costs it a start at most.
    """
    uids = {pod["metadata"]["uid"] for pod in hands.pods.values()}
    memory.noted = {(uid, joined) for uid, joined in memory.noted if uid in uids}
    for worker in fleet.staying:
        metadata = hands.pods[worker.name]["metadata"]
        joined = head.life if worker.said is not None else head.former
        is_noted = HEAD in (metadata.get("annotations") or {})
        if is_noted or joined is None or (metadata["uid"], joined) in memory.noted:
            continue
        body = {"metadata": {"uid": metadata["uid"], "annotations": {HEAD: joined}}}
        with suppress(Conflict):  # another pod by now
            await hands.api.merge(paths.pod(hands.namespace, worker.name), body)
        memory.noted.add((metadata["uid"], joined))


async def _take_away_lost(
    hands: KubernetesHands, fleet: Fleet, memory: HeadMemory, wanted: int
) -> None:
    """Delete the pods of lost workers that have ended, or that can't be waited for."""
    lost = [worker for worker in fleet.workers if worker.has_lost_head]
    uids = {worker.name: hands.pods[worker.name]["metadata"]["uid"] for worker in lost}
    known = memory.lost_since
    memory.lost_since = {uid: known.get(uid, fleet.at_s) for uid in uids.values()}
    staying = [p for p in hands.pods.values() if "deletionTimestamp" not in p["metadata"]]
    room = None if hands.max_pods is None else hands.max_pods - len(staying)
    missing = max(0, wanted - len(fleet.staying))
    for worker in lost:
        if "deletionTimestamp" in hands.pods[worker.name]["metadata"]:
            continue
        is_due = fleet.at_s >= memory.lost_since[uids[worker.name]] + LINGER_S
        is_in_the_way = room is not None and room < missing
        if worker.state is WorkerState.FAILED or is_due or is_in_the_way:
            await replace(hands, grace_s=LAST_S).remove_worker(worker, drain=True)
            room = None if room is None else room + 1
