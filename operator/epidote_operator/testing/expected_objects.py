"""This file is about the objects that a stored resource should have by now, and those that it has.

What is expected is read from the stored spec by the operator's own manifests: names and owners.
"""

from dataclasses import dataclass
from typing import Any

from epidote_operator.act.objects import PLURALS
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.resources.fleet_objects import revision_objects, shared_objects
from epidote_operator.resources.fleet_values import Defaults, Fleet
from epidote_operator.resources.head import gateway_service
from epidote_operator.resources.kuberay import API_VERSION as RAY
from epidote_operator.resources.labels import MANAGED_BY
from epidote_operator.resources.load_test_job import load_test_objects
from epidote_operator.spec.cluster import Provider
from epidote_operator.spec.parsing import parse_load_test, parse_service

OURS = {"labelSelector": f"app.kubernetes.io/managed-by={MANAGED_BY}"}
VERSIONS = {
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Pod": "v1",
    "PodDisruptionBudget": "policy/v1beta1",  # old servers lack v1, new ones this one
    "RayCluster": RAY,
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
}


@dataclass(frozen=True)
class Objects:
    """Of a namespace: (kind, name) → uid of the controller, "" without one."""

    owners: dict[tuple[str, str], str]

    @property
    def names(self) -> list[str]:
        return [f"{kind} {name}" for kind, name in self.owners]

    def of(self, resource: Manifest) -> list[tuple[str, str]]:
        """Those that a resource controls."""
        uid = resource["metadata"]["uid"]
        return [item for item, owner in self.owners.items() if owner == uid]


async def objects_of_ours(api: KubeApi, namespace: str) -> Objects:
    """Everything with our label; what controllers made of it counts, too."""
    owners = {}
    for kind, plural in PLURALS.items():
        version = VERSIONS[kind]
        path = paths.collection(version, plural, namespace)
        listed = await api.get(path, **OURS)
        if listed is None and kind == "PodDisruptionBudget":
            path = paths.collection("policy/v1", plural, namespace)
            listed = await api.get(path, **OURS)
        for item in (listed or {}).get("items", ()):
            metadata = item["metadata"]
            controllers = [
                owner["uid"]
                for owner in metadata.get("ownerReferences") or ()
                if owner.get("controller")
            ]
            owners[kind, metadata["name"]] = controllers[0] if controllers else ""
    return Objects(owners)


def missing_of(stored: Manifest, found: Objects) -> list[str]:
    """What a stored resource should control by now, and doesn't."""
    there = set(found.of(stored))
    match stored["kind"]:
        case "MultimodalService":
            wanted, least = _of_service(stored)
        case "LoadTest":
            wanted, least = _of_load_test(stored), 0
        case _:
            wanted, least = set(), 0  # a policy's objects are its services'
    missing = [f"{kind} {name}" for kind, name in sorted(wanted - there)]
    num_pods = sum(kind == "Pod" for kind, _ in there)
    return missing + ([f"{least} worker pods, but {num_pods}"] if num_pods < least else [])


def _of_service(stored: Manifest) -> tuple[set[tuple[str, str]], int]:
    """Objects by name, and the least number of worker pods."""
    metadata, spec = stored["metadata"], parse_service(stored["spec"])
    fleet = Fleet(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        spec=spec,
        revision=stored["status"]["revision"],
    )
    manifests = [
        *shared_objects(fleet, desired_workers=1),
        *revision_objects(fleet),
        gateway_service(fleet),
    ]
    wanted = {(item["kind"], item["metadata"]["name"]) for item in manifests}
    wanted.add(("Secret", fleet.secret))
    if spec.cache.policy_name is not None:
        wanted.add(("ConfigMap", f"{fleet.name}-cache-policy"))
    makes_pods = spec.cluster.provider is not Provider.KUBERAY
    return wanted, min(spec.pool.min_workers, spec.pool.most) if makes_pods else 0


def _of_load_test(stored: Manifest) -> set[tuple[str, str]]:
    spec = parse_load_test(stored["spec"])
    if spec.target.url is None:  # its service never serves here
        return set()
    metadata = stored["metadata"]
    manifests = load_test_objects(
        metadata["name"],
        metadata["namespace"],
        metadata["uid"],
        spec,
        url=spec.target.url,
        defaults=Defaults(),
    )
    return {(item["kind"], item["metadata"]["name"]) for item in manifests}


def ray_cluster_crd() -> dict[str, Any]:
    """RayClusters that the server stores and nobody acts on: there is no KubeRay here."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayclusters.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": "RayCluster", "plural": "rayclusters", "singular": "raycluster"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
