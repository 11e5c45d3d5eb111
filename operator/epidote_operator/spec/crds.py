"""This file is about the three CustomResourceDefinitions: names, columns, subresources, schemas."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from epidote_operator.spec import cache_policy, load_test, multimodal_service
from epidote_operator.spec.cache_policy import CachePolicySpec, CachePolicyStatus
from epidote_operator.spec.crd_schema import structural
from epidote_operator.spec.field_model import GROUP, VERSION
from epidote_operator.spec.load_test import LoadTestSpec, LoadTestStatus
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.object_name import MAX_NAME, NAME_PATTERN, NAME_WANTED
from epidote_operator.spec.service_status import MultimodalServiceStatus


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `kubectl get`; priority 1 shows with `-o wide` alone."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One kind of resource."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    scale: dict[str, str] | None = None


def _condition(kind: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")

SERVICE = Resource(
    kind="MultimodalService",
    plural=multimodal_service.PLURAL,
    short_name="mms",
    description="A multimodal model, served by a fleet of encode, prefill and decode workers that"
    " is sized and re-roled to keep a latency promise with the fewest GPUs.",
    spec=MultimodalServiceSpec,
    status=MultimodalServiceStatus,
    columns=(
        Column(name="Model", path=".spec.model.uri"),
        Column(name="Ready", path=_condition("Ready")),
        Column(name="Reason", path=_condition("Ready", "reason")),
        Column(
            name="E/P/D",
            path=".status.roleSummary",
            description="Ready encode, prefill and decode workers",
        ),
        Column(name="Workers", path=".status.readyWorkers", type="integer"),
        Column(name="Desired", path=".status.desiredWorkers", type="integer"),
        Column(name="SLO", path=_condition("SloMet")),
        Column(name="Limited", path=_condition("ScalingLimited"), priority=1),
        Column(name="Mode", path=".spec.scaling.mode", priority=1),
        Column(name="GPUs", path=".status.gpus.used", type="integer", priority=1),
        Column(name="Decision", path=".status.decisions[0].reason", priority=1),
        Column(name="URL", path=".status.url", priority=1),
        AGE,
    ),
    scale={
        "specReplicasPath": ".spec.pool.workers",
        "statusReplicasPath": ".status.workers",
        "labelSelectorPath": ".status.selector",
    },
)

POLICY = Resource(
    kind=cache_policy.KIND,
    plural=cache_policy.PLURAL,
    short_name="cpol",
    description="How the gateways of the services that name it keep and reuse answers, by category"
    " of question.",
    spec=CachePolicySpec,
    status=CachePolicyStatus,
    columns=(
        Column(name="Enabled", path=".spec.enabled", type="boolean"),
        Column(name="Categories", path=".status.numCategories", type="integer"),
        Column(name="Ready", path=_condition("Ready")),
        Column(name="Reason", path=_condition("Ready", "reason")),
        Column(name="Epoch", path=".spec.epoch", priority=1),
        AGE,
    ),
)

LOAD_TEST = Resource(
    kind="LoadTest",
    plural=load_test.PLURAL,
    short_name="lt",
    description="One run of the load generator, and its verdict.",
    spec=LoadTestSpec,
    status=LoadTestStatus,
    columns=(
        Column(name="Service", path=".spec.target.serviceName"),
        Column(name="Phase", path=".status.phase"),
        Column(name="Verdict", path=".status.verdict"),
        Column(name="Summary", path=".status.summary", priority=1),
        AGE,
    ),
)

RESOURCES = (SERVICE, POLICY, LOAD_TEST)


def crd(resource: Resource) -> dict[str, Any]:
    """The whole CustomResourceDefinition, `apiextensions.k8s.io/v1`."""
    scale = {"scale": resource.scale} if resource.scale else {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "epidote"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["epidote"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} | scale,
                    "additionalPrinterColumns": [_column(item) for item in resource.columns],
                    "schema": {"openAPIV3Schema": _object(resource)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        found["description"] = column.description
    return found | ({"priority": column.priority} if column.priority else {})


def _object(resource: Resource) -> dict[str, Any]:
    return {
        "description": resource.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": "The API's group and version.", "type": "string"},
            "kind": {"description": "The kind of resource.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(resource.spec),
            "status": structural(resource.status),
        },
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {MAX_NAME} &&"
                f" self.metadata.name.matches('{NAME_PATTERN}')",
                "message": f"metadata.name {NAME_WANTED}",
            }
        ],
    }
