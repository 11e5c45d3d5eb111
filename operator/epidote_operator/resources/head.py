"""This file is about the Ray head and the gateways: Deployments, and the Services before them."""

from epidote_operator.resources.cache_config import with_cache_policy
from epidote_operator.resources.commands import (
    HTTP_PORT,
    common_environment,
    gateway_command,
    gateway_environment,
    head_command,
)
from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.labels import HEAD_CHANGES, Component, selector
from epidote_operator.resources.pods import GRACE_S, pod_spec, pod_template
from epidote_operator.resources.ray_port import ray_port


def head_pod_template(fleet: Fleet) -> Manifest:
    """Metadata and spec of the head's pod."""
    port = ray_port(fleet)
    spec = pod_spec(
        fleet,
        container="head",
        command=head_command(fleet),
        env=common_environment(fleet),
        resources=fleet.spec.cluster.head.resources,
        grace_s=GRACE_S,
        more={
            "ports": [{"name": "ray", "containerPort": port, "protocol": "TCP"}],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 2},
            "terminationMessagePolicy": "FallbackToLogsOnError",  # for the status: why it ended
        },
    )
    return pod_template(fleet, Component.HEAD, spec, fleet.spec.cluster.head.template)


def head_deployment(fleet: Fleet) -> Manifest:
    """One head, and never two: a second one would be another cluster."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": fleet.metadata(fleet.part(Component.HEAD), Component.HEAD, revisioned=True),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector(fleet.name, Component.HEAD, fleet.revision)},
            "template": head_pod_template(fleet),
        },
    }


def head_service(fleet: Fleet) -> Manifest:
    """The name that workers and gateways join by. Headless: Ray wants the head's own address."""
    port = ray_port(fleet)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": fleet.metadata(fleet.head_service, Component.HEAD, revisioned=True),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(fleet.name, Component.HEAD, fleet.revision),
            "ports": [{"name": "ray", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def gateway_deployment(fleet: Fleet) -> Manifest:
    """The gateways of this revision; streams under way end before a pod does."""
    gateway = fleet.spec.gateway
    probe = {"port": HTTP_PORT, "scheme": "HTTP"}
    spec = pod_spec(
        fleet,
        container="gateway",
        command=gateway_command(fleet),
        env=gateway_environment(fleet),
        resources=gateway.resources,
        grace_s=fleet.spec.scaling.drain_deadline_seconds + GRACE_S,
        more={
            "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
            "readinessProbe": {
                "httpGet": {"path": "/readyz", **probe},
                "periodSeconds": 2,
                "timeoutSeconds": 5,  # slow on a busy node is no reason to refuse all clients
            },
            "livenessProbe": {
                "httpGet": {"path": "/livez", **probe},
                "periodSeconds": 10,
                "timeoutSeconds": 5,
                "failureThreshold": 6,
            },
            "startupProbe": {
                "httpGet": {"path": "/livez", **probe},
                "periodSeconds": 2,
                "failureThreshold": 150,
            },
        },
    )
    spec = with_cache_policy(fleet, spec)
    metadata = fleet.metadata(fleet.part(Component.GATEWAY), Component.GATEWAY, revisioned=True)
    template = pod_template(fleet, Component.GATEWAY, spec, gateway.template)
    if fleet.head_changes:  # those that joined an earlier head end: new ones come up beside them
        noted = {HEAD_CHANGES: str(fleet.head_changes)}
        annotations = {**template["metadata"].get("annotations", {}), **noted}
        template["metadata"] = {**template["metadata"], "annotations": annotations}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": gateway.replicas,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector(fleet.name, Component.GATEWAY, fleet.revision)},
            "template": template,
        },
    }


def gateway_service(fleet: Fleet) -> Manifest:
    """What clients call. It selects one revision: a rollout shifts it when the new one serves."""
    service = fleet.spec.gateway.service
    metadata = fleet.metadata(fleet.name, Component.GATEWAY)
    if service.annotations:
        metadata["annotations"] = dict(service.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": service.type.value,
            "selector": selector(fleet.name, Component.GATEWAY, fleet.revision),
            "ports": [
                {
                    "name": "http",
                    "port": service.port,
                    "targetPort": HTTP_PORT,
                    "protocol": "TCP",
                }
            ],
        },
    }


def gateway_url(fleet: Fleet) -> str:
    """The API's address inside the cluster."""
    host = f"{fleet.name}.{fleet.namespace}.svc.{fleet.defaults.cluster_domain}"
    return f"http://{host}:{fleet.spec.gateway.service.port}/v1"
