"""Names that others hold, on a real API server: what is theirs is neither written nor deleted."""

from typing import Any
from uuid import uuid4

import pytest

from epidote_operator.act.objects import apply_ours, path_of
from epidote_operator.act.ownership import NameTaken
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.head import gateway_service
from epidote_operator.spec.parsing import parse_service
from epidote_operator.testing.service_story import NAMESPACE, service_manifest, until_true

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

NAME = "owned"
PLURAL = paths.collection(paths.API_VERSION, "multimodalservices", NAMESPACE)
SERVICE = paths.item("v1", "services", NAMESPACE, NAME)


async def made(api: KubeApi) -> Manifest:
    """The Service that the resource, made now, wants; no operator runs."""
    resource = await api.create(PLURAL, service_manifest(NAME, "none"))
    spec = parse_service(resource["spec"])
    uid = resource["metadata"]["uid"]
    return gateway_service(
        Fleet(name=NAME, namespace=NAMESPACE, uid=uid, spec=spec, revision="abc")
    )


async def deleted(api: KubeApi, *, orphan: bool = False) -> None:
    policy = "Orphan" if orphan else "Background"
    await api.request("DELETE", f"{PLURAL}/{NAME}", body={"propagationPolicy": policy})

    async def gone() -> bool:
        return await api.get(f"{PLURAL}/{NAME}") is None

    await until_true(gone, f"{NAME} is gone")


async def test_a_users_service_is_neither_changed_nor_deleted_with_ours(api: KubeApi) -> None:
    theirs: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]},
    }
    before = await api.create(paths.collection("v1", "services", NAMESPACE), theirs)
    wanted = await made(api)
    with pytest.raises(NameTaken, match=f"Service '{NAME}'"):
        await apply_ours(api, wanted)
    assert await api.get(SERVICE) == before
    await deleted(api)
    assert (await api.request("GET", SERVICE))["metadata"]["uid"] == before["metadata"]["uid"]
    await api.delete(SERVICE)


async def test_an_object_is_made_kept_made_again_and_let_go_when_it_was_replaced(
    api: KubeApi,
) -> None:
    wanted = await made(api)
    assert path_of(wanted) == SERVICE
    uid = await apply_ours(api, wanted)
    assert await apply_ours(api, wanted, uid) == uid
    await api.delete(SERVICE)
    again = await apply_ours(api, wanted, uid)
    assert again not in ("", uid), "somebody deleted it: it is there again"
    await api.delete(SERVICE)
    theirs = {**wanted, "metadata": {"name": NAME, "namespace": NAMESPACE}}
    replaced = await api.create(paths.collection("v1", "services", NAMESPACE), theirs)
    with pytest.raises(NameTaken):
        await apply_ours(api, wanted, again)
    assert await api.get(SERVICE) == replaced
    await api.delete(SERVICE)
    await deleted(api)


async def seen_by_the_collector(api: KubeApi) -> None:
    """Every Service that is there now is known to Kubernetes' garbage collector.

    One that it has not seen yet when its owner is orphaned keeps the reference, and is collected.
    It sees Services in their order: when one whose owner never was is collected, it saw the rest.
    """
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": str(uuid4())}
    nobodys: Any = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nobodys", "namespace": NAMESPACE, "ownerReferences": [owner]},
        "spec": {"ports": [{"port": 80}]},
    }
    await api.create(paths.collection("v1", "services", NAMESPACE), nobodys)

    async def collected() -> bool:
        return await api.get(paths.item("v1", "services", NAMESPACE, "nobodys")) is None

    await until_true(collected, "the Service without an owner is collected")


async def test_what_was_orphaned_is_adopted_and_ends_with_its_new_owner(api: KubeApi) -> None:
    uid = await apply_ours(api, await made(api))
    await seen_by_the_collector(api)
    await deleted(api, orphan=True)
    orphan = await api.request("GET", SERVICE)
    assert not orphan["metadata"].get("ownerReferences")
    assert await apply_ours(api, await made(api)) == uid
    await deleted(api)

    async def gone() -> bool:
        return await api.get(SERVICE) is None

    await until_true(gone, "the Service is gone with its owner")
