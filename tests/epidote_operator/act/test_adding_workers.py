"""Names of worker pods: those of others are passed over, those of ours count as made."""

from typing import Any

import pytest

from epidote_core.roles import Role
from epidote_operator.act.hands import CannotAct
from epidote_operator.act.kubernetes_hands import MAX_FOREIGN, Asked, KubernetesHands
from epidote_operator.kube.errors import Conflict
from epidote_operator.resources.fleet_values import owner_reference
from epidote_operator.resources.labels import (
    COMPONENT,
    REVISION,
    ROLE,
    SERVICE,
    Component,
    labels,
)
from epidote_planner.lane import DEFAULT_GROUP, Lane

DECODE = Lane(DEFAULT_GROUP, Role.DECODE)


def pod(name: str, uid: str = "u") -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": labels("web", Component.WORKER, "r"),
        "ownerReferences": [owner_reference("web", uid)],
    }
    return {"kind": "Pod", "metadata": metadata}


class Pods:
    """An API server with pods only; a lagging cache shows none of them."""

    def __init__(self, *found: dict[str, Any]) -> None:
        self.stored = {item["metadata"]["name"]: item for item in found}
        self.made: list[str] = []

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.stored:
            raise Conflict("exists", status=409, reason="AlreadyExists")
        self.stored[name] = body
        self.made.append(name)
        return body

    async def merge(self, path: str, body: dict[str, Any]) -> None:
        metadata = self.stored[path.rpartition("/")[2]]["metadata"]
        assert body["metadata"]["uid"] == metadata["uid"]
        metadata["labels"] |= body["metadata"]["labels"]

    async def get(self, path: str) -> dict[str, Any] | None:
        return self.stored.get(path.rpartition("/")[2])


def hands(api: Any) -> KubernetesHands:
    return KubernetesHands(
        api=api,
        namespace="ns",
        service="web",
        pods={},
        gateways={},
        make_pod=lambda name, lane, at_s: pod(name),
        asked=Asked(),
        grace_s=1,
    )


async def test_a_pod_of_somebody_else_is_no_worker_and_the_next_number_is_taken() -> None:
    theirs = {"kind": "Pod", "metadata": {"name": "web-worker-0", "labels": {"app": "mine"}}}
    api = Pods(theirs)
    assert await hands(api).add_workers(DECODE, 2, 0.0) == 2
    assert api.made == ["web-worker-1", "web-worker-2"]
    assert api.stored["web-worker-0"] is theirs


async def test_a_pod_that_an_earlier_operator_made_counts() -> None:
    api = Pods(pod("web-worker-0"))
    assert await hands(api).add_workers(DECODE, 2, 0.0) == 2
    assert api.made == ["web-worker-1"]


@pytest.mark.parametrize("label", [SERVICE, COMPONENT, REVISION])
async def test_a_pod_of_ours_that_lost_the_labels_we_find_it_by_gets_them_back(label: str) -> None:
    """Else it would be asked for at every tick, and be there, and never be seen."""
    hidden = pod("web-worker-0")
    hidden["metadata"]["labels"] |= {label: "spoilt", ROLE: "encode"}
    if label == REVISION:
        del hidden["metadata"]["labels"][label]
    api = Pods(hidden)
    assert await hands(api).add_workers(DECODE, 1, 0.0) == 1
    assert api.made == []
    assert hidden["metadata"]["labels"] == {
        **pod("web-worker-0")["metadata"]["labels"],
        ROLE: "encode",
    }


async def test_a_pod_of_the_former_revision_keeps_its_own() -> None:
    hidden = pod("web-worker-0")
    hidden["metadata"]["labels"] |= {REVISION: "former", SERVICE: "spoilt"}
    await hands(Pods(hidden)).add_workers(DECODE, 1, 0.0)
    assert hidden["metadata"]["labels"][REVISION] == "former"


async def test_pods_of_an_earlier_service_of_that_name_are_not_counted() -> None:
    api = Pods(pod("web-worker-0", uid="earlier"))
    assert await hands(api).add_workers(DECODE, 1, 0.0) == 1
    assert api.made == ["web-worker-1"]


async def test_names_without_end_that_others_hold_end_in_an_error() -> None:
    taken = [pod(f"web-worker-{number}", uid="x") for number in range(MAX_FOREIGN + 1)]
    with pytest.raises(CannotAct, match="no free name for a worker"):
        await hands(Pods(*taken)).add_workers(DECODE, 1, 0.0)
