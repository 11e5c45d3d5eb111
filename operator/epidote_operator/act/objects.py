"""This file is about the objects around the workers: applied when they change, and now and then.

Server-side apply: fields that others own stay theirs, and what we apply twice changes nothing.
Objects of others are not written at all: `ownership` has the rules.
"""

from collections.abc import Iterable
from contextlib import suppress

from epidote_operator.act.ownership import NameTaken, demand_ours
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.resources.protection import POLICY_V1

PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Job": "jobs",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "RayCluster": "rayclusters",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}


def path_of(manifest: Manifest) -> str:
    """Where an object of ours lives."""
    metadata = manifest["metadata"]
    return paths.item(
        manifest["apiVersion"],
        PLURALS[manifest["kind"]],
        metadata["namespace"],
        metadata["name"],
    )


async def apply_all(api: KubeApi, manifests: Iterable[Manifest]) -> None:
    """Apply them in order; the first failure ends it, and the next tick begins again.

    Raises:
        NameTaken: one of them is there and isn't ours.
    """
    for manifest in manifests:
        await apply_ours(api, manifest)


async def apply_ours(api: KubeApi, manifest: Manifest, uid: str = "") -> str:
    """Make or change an object that is ours; returns its uid.

    `uid`: of the object that is known to be ours. It goes along as a condition, so that nobody need
    look first, and one that took its place is left alone.

    Raises:
        NameTaken: it is there and isn't ours; nothing was written.
    """
    path = path_of(manifest)
    known = uid or await _our_uid(api, path, manifest)
    try:
        applied = await api.apply(path, _conditional(manifest, known))
    except ApiRefused as refused:
        if not known or refused.status not in (409, 422):
            raise
        present = await _our_uid(api, path, manifest)
        if present == known:
            raise  # it was refused for something else
        applied = await api.apply(path, _conditional(manifest, present))
    return str(applied["metadata"].get("uid", ""))


async def delete_ours(api: KubeApi, manifest: Manifest) -> None:
    """Delete the object that `manifest` describes, if there is one and it is ours."""
    path = path_of(manifest)
    with suppress(NameTaken):
        if uid := await _our_uid(api, path, manifest):
            await api.delete(path, uid=uid)


async def _our_uid(api: KubeApi, path: str, manifest: Manifest) -> str:
    """The uid of the object there, "" if there is none. Raises `NameTaken`."""
    found = await api.get(path)
    if found is None:
        return ""
    demand_ours(found, manifest)
    return str(found["metadata"].get("uid", ""))


def _conditional(manifest: Manifest, uid: str) -> Manifest:
    if not uid:
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}}


async def policy_versions(api: KubeApi) -> tuple[str, ...]:
    """The group versions that decide how budgets are written: old servers lack policy/v1."""
    return (POLICY_V1,) if await api.get(f"/apis/{POLICY_V1}") is not None else ()
