"""This file is about the objects that a spec would make, to ask the API server about beforehand.

Templates pass through the operator as they are: whether the result is a pod, the server alone
knows. A Deployment's or Job's pod is asked about as such, since its own pods would be refused where
nobody looks. Names are the server's to make up: the real ones may be taken, by us.
"""

from dataclasses import dataclass
from typing import Any

from epidote_core.roles import Role
from epidote_operator.resources.field_origins import Origin
from epidote_operator.resources.fleet_values import Defaults, Fleet, Manifest
from epidote_operator.resources.head import (
    gateway_deployment,
    gateway_service,
    head_deployment,
)
from epidote_operator.resources.load_test_job import load_test_objects
from epidote_operator.resources.pods import worker_pod
from epidote_operator.spec.load_test import LoadTestSpec
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.pool import PodTemplate

RESOURCES = ("spec", "containers", "0", "resources")  # of the container that is generated
IMAGE = ("spec", "containers", "0", "image")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An object that would be made, and where its fields come from."""

    manifest: Manifest
    origin: Origin


def service_trials(
    name: str, namespace: str, spec: MultimodalServiceSpec, defaults: Defaults
) -> list[Trial]:
    """Worker, head and gateway as pods, and the Service before the gateways."""
    fleet = Fleet(
        name=name, namespace=namespace, uid="", spec=spec, revision="0", defaults=defaults
    )
    cluster: dict[tuple[str, ...], str] = {
        ("spec", "serviceAccountName"): "spec.cluster.serviceAccountName",
        IMAGE: "spec.image",
    }
    head, gateway = head_deployment(fleet), gateway_deployment(fleet)
    trials = [
        Trial(
            manifest=_pod(fleet, pod),
            origin=Origin(
                rest=root,
                template_path=f"{root}.template",
                template=_given(template),
                fields={RESOURCES: f"{root}.resources", **cluster},
            ),
        )
        for root, pod, template in (
            ("spec.pool", worker_pod(fleet, name, Role.DECODE), spec.pool.template),
            ("spec.cluster.head", head["spec"]["template"], spec.cluster.head.template),
            ("spec.gateway", gateway["spec"]["template"], spec.gateway.template),
        )
    ]
    where = "spec.gateway.service"
    service = _unnamed(name, gateway_service(fleet))
    annotations: dict[tuple[str, ...], str] = {("metadata", "annotations"): f"{where}.annotations"}
    return [*trials, Trial(manifest=service, origin=Origin(rest=where, fields=annotations))]


def load_test_trials(
    name: str, namespace: str, spec: LoadTestSpec, defaults: Defaults
) -> list[Trial]:
    """The Job's pod."""
    *_, job = load_test_objects(name, namespace, "", spec, url="http://target", defaults=defaults)
    template = job["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "namespace": namespace}
    origin = Origin(
        rest="spec",
        template_path="spec.template",
        template=_given(spec.template),
        fields={RESOURCES: "spec.resources", IMAGE: "spec.image"},
    )
    return [Trial(manifest=_unnamed(name, pod), origin=origin)]


def _given(template: PodTemplate) -> dict[str, Any]:
    return {"metadata": template.metadata, "spec": template.spec}


def _pod(fleet: Fleet, pod: Manifest) -> Manifest:
    """Without the account that the operator is about to make, if it is that one."""
    spec = dict(pod["spec"])
    if fleet.spec.cluster.service_account_name is None:
        del spec["serviceAccountName"]
    metadata = {**pod["metadata"], "namespace": fleet.namespace}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return _unnamed(fleet.name, made)


def _unnamed(name: str, manifest: Manifest) -> Manifest:
    """Under a name to be made up, and owned by nobody: its owner may not be there yet."""
    given = manifest["metadata"]
    kept = {key: given[key] for key in ("namespace", "labels", "annotations") if key in given}
    return {**manifest, "metadata": {**kept, "generateName": f"{name}-"}}
