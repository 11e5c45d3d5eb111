"""This file is about the Ray cluster, the gateways and the network around the workers."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from epidote_operator.spec.field_model import LIST_SET, Name, ObjectName, SpecModel, cel_rules
from epidote_operator.spec.model_source import SecretKey
from epidote_operator.spec.pool import PodResources, PodTemplate


class Provider(StrEnum):
    """Who creates the Ray pods."""

    PODS = "Pods"
    KUBERAY = "KubeRay"


class PullPolicy(StrEnum):
    """When a node fetches the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class HeadSpec(SpecModel):
    """The Ray head: it keeps the cluster's books and computes nothing."""

    resources: PodResources = PodResources()
    """Requests and limits of the head container."""
    template: PodTemplate = PodTemplate()
    """Laid over the generated head pod."""


class ClusterSpec(SpecModel):
    """The Ray cluster under the workers."""

    model_config = cel_rules(
        (
            "self.provider == oldSelf.provider",
            "can't be changed: delete the service and create it again",
            ".provider",
        )
    )

    provider: Provider = Provider.PODS
    """Pods: the operator creates the pods itself. KubeRay: it writes a RayCluster and the KubeRay
    operator creates them. Can't be changed."""
    head: HeadSpec = HeadSpec()
    """The Ray head."""
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When nodes fetch the image."""
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=16)] = ()
    """Secrets of this namespace to fetch the image with."""
    service_account_name: ObjectName | None = None
    """Account the pods run as. Default: one of their own, without any right."""


class ServiceType(StrEnum):
    """How the gateways are reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class GatewayServiceSpec(SpecModel):
    """The Kubernetes Service in front of the gateways."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """How it is reached."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Its port."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations to add, such as those of a cloud's load balancer."""


class GatewaySpec(SpecModel):
    """The OpenAI-compatible API in front of the fleet."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Gateway pods. With one nobody is answered while it restarts; two or more survive a node."""
    service: GatewayServiceSpec = GatewayServiceSpec()
    """The Service that clients call."""
    api_keys: SecretKey | None = None
    """Secret with the keys that clients must send: `key` or `tenant:key`, separated by commas.
    Default: everybody who reaches the Service may ask."""
    settings: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Further settings by name, such as `max_queue: "1024"`; see docs/gateway.md."""
    resources: PodResources = PodResources()
    """Requests and limits of the gateway container."""
    template: PodTemplate = PodTemplate()
    """Laid over the generated gateway pods."""


class MetricsSource(StrEnum):
    """Where the operator reads what it decides on."""

    WORKERS = "Workers"
    PROMETHEUS = "Prometheus"


class MetricsSpec(SpecModel):
    """Where measurements come from."""

    source: MetricsSource = MetricsSource.WORKERS
    """Workers: from the gateways' `/metrics` and the workers directly. Prometheus: by PromQL."""
    prometheus_url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)] | None = None
    """Address of the Prometheus API. Default: the operator's own setting."""
    window_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Window that rates and quantiles are taken over."""


class NetworkSpec(SpecModel):
    """Who may talk to the pods."""

    policy: bool = True
    """Create NetworkPolicies: only the fleet's own pods and the operator reach workers and head."""
    client_namespaces: Annotated[
        tuple[Name, ...], Field(max_length=64, json_schema_extra=LIST_SET)
    ] = ()
    """Namespaces whose pods may call the gateways. Default: all."""


class RolloutSpec(SpecModel):
    """How a change of model, image or pod template reaches a serving fleet."""

    max_surge_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """New workers started ahead of the old ones they replace, within the GPU budget where it has
    room. Without room, old workers of roles with more than one worker leave first."""
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1800
    """A change without progress for so long is reported as failed; the old workers serve on."""
