"""The fleet's Secret: lost, spoilt, somebody else's; what becomes of the keys."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pytest

from epidote_operator.act.fleet_keys import SpoiltSecret, ensure_keys
from epidote_operator.act.ownership import NameTaken
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.spec.parsing import parse_service
from epidote_operator.testing.service_story import service_manifest

SPEC = parse_service(service_manifest("web", "image")["spec"])
FLEET = Fleet(name="web", namespace="ns", uid="u", spec=SPEC, revision="r")
PATH = "/api/v1/namespaces/ns/secrets/web-internal"


@dataclass
class Secrets:
    """An API server with Secrets only."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def get(self, path: str) -> dict[str, Any] | None:
        return self.stored.get(path)

    async def request(self, method: str, path: str) -> dict[str, Any]:
        return self.stored[path]

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = {k: b64encode(v.encode()).decode() for k, v in body["stringData"].items()}
        self.stored[f"{path}/{body['metadata']['name']}"] = made = {**body, "data": data}
        return made


@pytest.fixture
def api() -> Any:
    return Secrets()


async def test_keys_are_made_once(api: Any) -> None:
    first = await ensure_keys(api, FLEET, None, has_fleet=False)
    again = await ensure_keys(api, FLEET, None, has_fleet=True)
    assert first.keys == again.keys
    assert (again.keys.generation, again.event) == ("", "")
    assert "admin_key" not in repr(again)


async def test_a_lost_secret_is_made_again_with_the_keys_that_the_operator_knows(api: Any) -> None:
    first = await ensure_keys(api, FLEET, None, has_fleet=False)
    api.stored.clear()
    healed = await ensure_keys(api, FLEET, first.keys, has_fleet=True)
    assert healed.keys == first.keys
    assert "same keys" in healed.event


async def test_keys_that_nobody_knows_any_more_make_another_revision_for_good(api: Any) -> None:
    """The pods that run have the old ones: an heir must find out, too, and after the next loss."""
    await ensure_keys(api, FLEET, None, has_fleet=False)
    api.stored.clear()
    anew = await ensure_keys(api, FLEET, None, has_fleet=True)
    assert anew.keys.generation
    assert "replaced" in anew.event
    assert (await ensure_keys(api, FLEET, None, has_fleet=True)).keys == anew.keys
    api.stored.clear()
    assert (await ensure_keys(api, FLEET, anew.keys, has_fleet=True)).keys == anew.keys


async def test_a_secret_of_somebody_else_is_neither_read_nor_replaced(api: Any) -> None:
    theirs = {"metadata": {"name": "web-internal", "uid": "x"}, "data": {"password": "eA=="}}
    api.stored[PATH] = theirs
    with pytest.raises(NameTaken, match="Secret 'web-internal'"):
        await ensure_keys(api, FLEET, None, has_fleet=False)
    assert api.stored == {PATH: theirs}


async def test_a_secret_without_a_key_is_told_by_its_name(api: Any) -> None:
    known = (await ensure_keys(api, FLEET, None, has_fleet=False)).keys
    del api.stored[PATH]["data"]["admin-key"]
    with pytest.raises(SpoiltSecret, match="found no admin-key") as told:
        await ensure_keys(api, FLEET, known, has_fleet=True)
    assert known.ray_token not in str(told.value)


async def test_keys_that_somebody_changed_do_not_count_while_the_first_are_known(api: Any) -> None:
    known = (await ensure_keys(api, FLEET, None, has_fleet=False)).keys
    api.stored[PATH]["data"]["admin-key"] = "eA=="
    with pytest.raises(SpoiltSecret, match="delete the Secret"):
        await ensure_keys(api, FLEET, known, has_fleet=True)


async def test_keys_that_were_edited_while_no_operator_ran_make_another_revision(api: Any) -> None:
    first = (await ensure_keys(api, FLEET, None, has_fleet=False)).keys
    api.stored[PATH]["data"]["admin-key"] = b64encode(b"edited").decode()
    found = await ensure_keys(api, FLEET, None, has_fleet=True, has_first_keys=True)
    assert found.keys.admin_key == "edited"
    assert found.keys.generation
    assert "changed while no operator ran" in found.event
    again = await ensure_keys(api, FLEET, None, has_fleet=True)
    assert (again.keys, again.event) == (found.keys, ""), "told while it is news"
    with pytest.raises(SpoiltSecret):
        await ensure_keys(api, FLEET, first, has_fleet=True)
    api.stored.clear()
    restored = await ensure_keys(api, FLEET, found.keys, has_fleet=True)
    assert restored.keys == found.keys
    assert (await ensure_keys(api, FLEET, None, has_fleet=True)).keys == found.keys


async def test_a_secret_from_before_there_were_notes_is_believed(api: Any) -> None:
    first = (await ensure_keys(api, FLEET, None, has_fleet=False)).keys
    del api.stored[PATH]["metadata"]["annotations"]
    assert (await ensure_keys(api, FLEET, None, has_fleet=True)).keys == first
