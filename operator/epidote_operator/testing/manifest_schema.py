"""This file is about checking manifests against Kubernetes' own types, unknown fields included.

The models of the `kubernetes` client are made from the API's OpenAPI document (Kubernetes 1.36 for
release 36) and refuse what it doesn't know. Kinds of other projects (monitoring, ray.io,
cert-manager) have no model there.
"""

from typing import Any

from kubernetes import client

from epidote_operator.spec.crds import RESOURCES

FOREIGN = ("monitoring.coreos.com/v1", "ray.io/v1", "cert-manager.io/v1")
OURS = {resource.kind for resource in RESOURCES}


def check(manifest: dict[str, Any]) -> bool:
    """Whether Kubernetes has a type for it; it is valid then.

    Raises:
        ValueError: a field is unknown or of the wrong type, or the kind is.
    """
    kind, version = manifest["kind"], manifest["apiVersion"]
    if version in FOREIGN or kind in OURS:
        return False
    name = version.rpartition("/")[2].capitalize() + kind
    model = getattr(client, name, None)
    if model is None:
        raise ValueError(f"{version} {kind}: Kubernetes has no such kind")
    model.model_validate(manifest)
    return True
