"""A fleet that KubeRay makes: numbers and victims, told in one conditional patch."""

from typing import Any

import pytest

from epidote_core.roles import Role, WorkerState
from epidote_operator.act.hands import CannotAct
from epidote_operator.act.kuberay_hands import KubeRayHands
from epidote_operator.act.kubernetes_hands import Asked
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.kuberay import ray_cluster
from epidote_operator.resources.labels import REVISION
from epidote_operator.spec.parsing import parse_service
from epidote_operator.status.fleet import FleetWorker
from epidote_planner.lane import Lane

DECODE = Lane("default", Role.DECODE)
SPEC = {
    "model": {"uri": "builtin://demo"},
    "pool": {"maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
    "cluster": {"provider": "KubeRay"},
}
FLEET = Fleet(name="chat", namespace="prod", uid="u", spec=parse_service(SPEC), revision="new")


class PretendApi:
    """Holds one RayCluster, and what was done."""

    def __init__(self, cluster: dict[str, Any] | None) -> None:
        self.cluster = cluster
        self.deleted: list[str] = []

    async def get(self, path: str) -> dict[str, Any] | None:
        assert path == "/apis/ray.io/v1/namespaces/prod/rayclusters/chat-head-new"
        return self.cluster

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self.cluster is not None
        assert body["metadata"] == {"resourceVersion": "7"}, "conditional"
        self.cluster["spec"] |= body["spec"]
        return self.cluster

    async def delete(self, path: str, **more: Any) -> bool:
        self.deleted.append(path.rpartition("/")[2])
        return True


def pods(*names: str, revision: str = "new", **metadata: Any) -> dict[str, Any]:
    return {
        name: {"metadata": {"name": name, "uid": name, "labels": {REVISION: revision}, **metadata}}
        for name in names
    }


def hands(api: PretendApi, there: dict[str, Any], **more: Any) -> KubeRayHands:
    return KubeRayHands(
        api=api,  # type: ignore[arg-type]
        namespace="prod",
        service="chat",
        pods=there,
        gateways={},
        make_pod=lambda name, lane, at_s: {},
        asked=Asked(),
        grace_s=30,
        cluster="chat-head-new",
        revision="new",
        **more,
    )


def made() -> PretendApi:
    cluster = ray_cluster(FLEET, workers=0)
    cluster["metadata"]["resourceVersion"] = "7"
    return PretendApi(cluster)


def group(api: PretendApi) -> dict[str, Any]:
    assert api.cluster is not None
    (found,) = api.cluster["spec"]["workerGroupSpecs"]
    return dict(found)


def worker(name: str) -> FleetWorker:
    return FleetWorker(name=name, lane=DECODE, state=WorkerState.ROUTABLE, since_s=0.0)


async def test_workers_are_counted_from_the_pods_so_that_asking_twice_changes_nothing() -> None:
    api = made()
    there = pods("a", "b") | pods("old", revision="old") | pods("c", deletionTimestamp="now")
    for _ in range(2):
        assert await hands(api, there).add_workers(DECODE, 2, 0.0) == 2
        assert group(api)["replicas"] == 4
    assert (
        group(api)["template"]
        == ray_cluster(FLEET, workers=0)["spec"]["workerGroupSpecs"][0]["template"]
    ), "nothing else was touched"


async def test_starts_in_several_lanes_add_up_and_stop_at_the_budget() -> None:
    api, there = made(), pods("a", "b")
    tick = hands(api, there, max_pods=5)
    assert await tick.add_workers(DECODE, 2, 0.0) == 2
    assert await tick.add_workers(Lane("default", Role.ENCODE), 2, 0.0) == 1
    assert group(api)["replicas"] == 5


async def test_the_planners_victims_are_named_and_left_to_kuberay() -> None:
    api = made()
    tick = hands(api, pods("a", "b", "c"))
    await tick.remove_worker(worker("b"), drain=True)
    await tick.remove_worker(worker("c"), drain=True)
    assert group(api)["replicas"] == 1
    assert group(api)["scaleStrategy"] == {"workersToDelete": ["b", "c"]}
    assert api.deleted == [], "KubeRay deletes them, and their grace lets them drain"


async def test_one_that_never_served_goes_at_once() -> None:
    api = made()
    await hands(api, pods("a", "b")).remove_worker(worker("a"), drain=False)
    assert api.deleted == ["a"]
    assert group(api)["replicas"] == 1


async def test_a_cluster_that_is_not_there_yet_is_waited_for() -> None:
    with pytest.raises(CannotAct, match="'chat-head-new' is not there yet"):
        await hands(PretendApi(None), {}).add_workers(DECODE, 1, 0.0)


async def test_a_cluster_of_somebody_else_is_not_scaled() -> None:
    api = made()
    assert api.cluster is not None
    api.cluster["metadata"] |= {"labels": {"app": "mine"}, "ownerReferences": []}
    with pytest.raises(CannotAct, match="'chat-head-new' is somebody else's"):
        await hands(api, {}).add_workers(DECODE, 1, 0.0)
    assert group(api)["replicas"] == 0
