"""Whose an object is: what others made is never written, what was orphaned is taken back."""

from typing import Any

import pytest

from epidote_operator.act.objects import apply_ours
from epidote_operator.act.ownership import NameTaken, is_ours
from epidote_operator.kube.errors import Conflict
from epidote_operator.resources.fleet_values import owner_reference
from epidote_operator.resources.labels import Component, labels, load_test_labels


def service(uid: str = "", **more: Any) -> dict[str, Any]:
    """The Service that the MultimodalService `web` with uid "u" wants, or a change of it."""
    metadata: dict[str, Any] = {
        "name": "web",
        "namespace": "ns",
        "labels": labels("web", Component.GATEWAY),
        "ownerReferences": [owner_reference("web", "u")],
        **more,
    }
    if uid:
        metadata["uid"] = uid
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata}


@pytest.mark.parametrize(
    ("found", "ours"),
    [
        (service(), True),
        (service(labels={}), True),  # somebody wiped the labels: the owner counts
        (service(ownerReferences=[]), True),  # orphaned
        (service(ownerReferences=[], labels={"app": "mine"}), False),
        (service(ownerReferences=[], labels={"epidote.dev/service": "web"}), False),
        (service(ownerReferences=[], labels=labels("other")), False),
        (service(ownerReferences=[], labels=load_test_labels("web")), False),
        (service(ownerReferences=[owner_reference("web", "earlier")]), False),
        (service(ownerReferences=[{**owner_reference("a", "b"), "controller": False}]), True),
    ],
)
def test_whose_an_object_is(found: dict[str, Any], ours: bool) -> None:
    assert is_ours(found, service()) is ours


class PretendApi:
    """One object, and an API server's refusal of a uid that it no longer has."""

    def __init__(self, found: dict[str, Any] | None) -> None:
        self.found, self.num_applied = found, 0

    async def get(self, path: str) -> dict[str, Any] | None:
        return self.found

    async def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        known = None if self.found is None else self.found["metadata"]["uid"]
        if body["metadata"].get("uid", known) != known:
            raise Conflict("uid mismatch", status=409, reason="Conflict")
        self.num_applied += 1
        self.found = {**body, "metadata": {**body["metadata"], "uid": known or "new"}}
        return self.found


async def test_a_service_that_a_user_made_is_left_as_it_is() -> None:
    theirs = service("x", ownerReferences=[], labels={"app": "mine"})
    api: Any = PretendApi(theirs)
    with pytest.raises(NameTaken, match=r"Service 'web' must be free .* without an owner"):
        await apply_ours(api, service())
    assert api.found is theirs


async def test_an_object_that_took_the_place_of_ours_is_noticed_by_its_uid() -> None:
    theirs = service("x", ownerReferences=[], labels={"app": "mine"})
    api: Any = PretendApi(theirs)
    with pytest.raises(NameTaken):
        await apply_ours(api, service(), uid="ours")
    assert api.found is theirs


async def test_an_object_that_somebody_deleted_is_made_again() -> None:
    api: Any = PretendApi(None)
    assert await apply_ours(api, service(), uid="ours") == "new"


async def test_an_orphan_is_owned_again() -> None:
    api: Any = PretendApi(service("x", ownerReferences=[]))
    assert await apply_ours(api, service()) == "x"
    assert api.found["metadata"]["ownerReferences"] == [owner_reference("web", "u")]
