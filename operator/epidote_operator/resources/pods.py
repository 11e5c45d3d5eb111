"""This file is about pods: what all of them have in common, and the worker's own.

Every pod meets the `restricted` Pod Security Standard: no root, no capabilities, no privilege
escalation, the runtime's seccomp profile, and a root file system that can't be written.
"""

from typing import Any

from epidote_core.roles import Role
from epidote_operator.resources.commands import (
    HOME,
    MODELS,
    PROBE_PORT,
    worker_command,
    worker_environment,
)
from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.labels import Component, role_labels
from epidote_operator.resources.overlay import merged, with_template
from epidote_operator.spec.model_source import parse_source
from epidote_operator.spec.pool import PodResources, PodTemplate

USER = 10001  # of the image; any other non-root id works, too
GRACE_S = 30  # added to the drain: the worker's own end, and the kubelet's delays
SHARED_MEMORY = "shm"


def pod_spec(
    fleet: Fleet,
    *,
    container: str,
    command: list[str],
    env: list[dict[str, Any]],
    resources: PodResources,
    grace_s: int,
    more: Manifest | None = None,
) -> Manifest:
    """A pod's spec with one container and scratch space. `more` goes into the container."""
    cluster = fleet.spec.cluster
    main: Manifest = {
        "name": container,
        "image": fleet.image,
        "imagePullPolicy": cluster.image_pull_policy.value,
        "command": command,
        "env": env,
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
            {"name": SHARED_MEMORY, "mountPath": "/dev/shm"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    amounts = {
        kind: dict(values)
        for kind, values in (("requests", resources.requests), ("limits", resources.limits))
        if values
    }
    if amounts:
        main["resources"] = amounts
    spec: Manifest = {
        "serviceAccountName": fleet.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [merged(main, more or {})],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "home", "emptyDir": {}},
            # Pools, embeddings and Ray's objects lie here; it counts as the pod's memory.
            {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory"}},
        ],
    }
    source = parse_source(fleet.spec.model.uri)
    if source.kind == "pvc":  # workers read weights there, head and gateways the tokenizer
        claim = {"claimName": source.name, "readOnly": True}
        spec["volumes"].append({"name": "models", "persistentVolumeClaim": claim})
        mount = {"name": "models", "mountPath": MODELS, "readOnly": True}
        spec["containers"][0]["volumeMounts"].append(mount)
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cluster.image_pull_secrets]
    return spec


def pod_template(
    fleet: Fleet, component: Component, spec: Manifest, template: PodTemplate
) -> Manifest:
    """Metadata and spec for a Deployment or a RayCluster, the user's template laid over."""
    labels = fleet.metadata("", component, revisioned=True)["labels"]
    return with_template({"metadata": {"labels": labels}, "spec": spec}, template)


def worker_spec(fleet: Fleet) -> Manifest:
    """The spec of a worker pod, before the user's template."""
    pool = fleet.spec.pool
    more: Manifest = {
        "ports": [{"name": "probes", "containerPort": PROBE_PORT}],
        # Routable: loaded, and not between two roles. No liveness probe: a worker whose node is
        # lost ends by itself, and one that hangs is replaced by the operator.
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": PROBE_PORT, "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
    }
    if pool.gpus:
        amount = {pool.gpu_resource_name: str(pool.gpus)}
        more["resources"] = {"limits": amount, "requests": amount}
    return pod_spec(
        fleet,
        container="worker",
        command=worker_command(fleet),
        env=worker_environment(fleet),
        resources=pool.resources,
        grace_s=fleet.spec.scaling.drain_deadline_seconds + GRACE_S,
        more=more,
    )


def worker_pod(fleet: Fleet, name: str, role: Role) -> Manifest:
    """One worker: a bare pod, because the planner chooses which one leaves."""
    template = pod_template(fleet, Component.WORKER, worker_spec(fleet), fleet.spec.pool.template)
    metadata = fleet.metadata(name, Component.WORKER, revisioned=True)
    metadata["labels"] = template["metadata"]["labels"] | role_labels(role)
    if annotations := template["metadata"].get("annotations"):
        metadata["annotations"] = annotations
    # The operator replaces a worker that ends: a restarted container would come back under an old
    # name, without its role and with nobody's decision.
    spec = {**template["spec"], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
