"""This file is about the objects around the workers: applied when they change, and now and then.

Server-side apply: fields that others own stay theirs, and what we apply twice changes nothing.
"""

import secrets
from base64 import b64decode
from collections.abc import Iterable

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import Conflict
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.protection import POLICY_V1, internal_secret

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
    """Apply them in order; the first failure ends it, and the next tick begins again."""
    for manifest in manifests:
        await api.apply(path_of(manifest), manifest)


async def ensure_secret(api: KubeApi, fleet: Fleet) -> str:
    """The fleet's internal Secret, made with random keys if there is none; returns the admin key.

    Never changed afterwards: workers of different ages must agree on it.
    """
    path = paths.item("v1", "secrets", fleet.namespace, fleet.secret)
    found = await api.get(path)
    if found is None:
        body = internal_secret(
            fleet, admin_key=secrets.token_urlsafe(32), ray_token=secrets.token_hex(32)
        )
        try:
            found = await api.create(paths.collection("v1", "secrets", fleet.namespace), body)
        except Conflict:  # made a moment ago, by an operator that did not live to see it
            found = await api.request("GET", path)
    return _decoded(found, "admin-key")


def _decoded(secret: Manifest, key: str) -> str:

    return b64decode(secret["data"][key]).decode()


async def policy_versions(api: KubeApi) -> tuple[str, ...]:
    """The group versions that decide how budgets are written: old servers lack policy/v1."""
    return (POLICY_V1,) if await api.get(f"/apis/{POLICY_V1}") is not None else ()
