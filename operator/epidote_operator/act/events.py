"""This file is about Events: what changed, said once, where `kubectl describe` shows it."""

from datetime import UTC, datetime
from hashlib import sha256

from epidote_operator.kube import paths
from epidote_operator.kube.api import FIELD_MANAGER, KubeApi, Manifest
from epidote_operator.kube.errors import Conflict

MAX_MESSAGE = 1024  # the API's bound


async def tell(
    api: KubeApi, resource: Manifest, *, reason: str, message: str, now_s: float, kind: str = ""
) -> None:
    """Write one Event about `resource`. `kind` "Warning" where somebody must look soon.

    Its name is made of what it says, so that telling it twice at one moment makes one Event.
    """
    metadata = resource["metadata"]
    namespace = metadata["namespace"]
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = sha256(f"{metadata['uid']}{reason}{message}{int(now_s)}".encode()).hexdigest()[:16]
    body: Manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "name": metadata["name"],
            "namespace": namespace,
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": kind or "Normal",
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        await api.create(paths.collection("v1", "events", namespace), body)
    except Conflict:  # told already
        return
