"""This file is about what the manifests of one fleet are made from, besides the spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.resources.labels import Component, labels
from epidote_operator.spec.field_model import API_VERSION
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What the operator was told by its own settings."""

    image: str = "epidote/worker:0.1.0"
    operator_namespace: str = "epidote-system"
    operator_labels: Mapping[str, str] = field(
        default_factory=lambda: {"app.kubernetes.io/name": "epidote-operator"}
    )
    cluster_domain: str = "cluster.local"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One service at one revision: everything its manifests need."""

    name: str
    namespace: str
    uid: str
    spec: MultimodalServiceSpec
    revision: str
    defaults: Defaults = Defaults()
    head_changes: int = 0  # how often the head came back as another one

    @property
    def image(self) -> str:
        return self.spec.image or self.defaults.image

    @property
    def head_service(self) -> str:
        return self.part(Component.HEAD)

    @property
    def secret(self) -> str:
        """Secret with the keys that only the fleet and the operator know."""
        return f"{self.name}-internal"

    @property
    def own_account(self) -> str:
        return f"{self.name}-fleet"

    @property
    def service_account(self) -> str:
        return self.spec.cluster.service_account_name or self.own_account

    def part(self, component: Component) -> str:
        """Name of an object of this revision: revisions live side by side while one replaces
        the other."""
        return f"{self.name}-{component.value}-{self.revision}"

    def metadata(
        self, name: str, component: Component | None = None, *, revisioned: bool = False
    ) -> Manifest:
        """Name, labels and owner of one of the fleet's objects."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": labels(self.name, component, self.revision if revisioned else None),
            "ownerReferences": [owner_reference(self.name, self.uid)],
        }


def owner_reference(name: str, uid: str, kind: str = MultimodalServiceSpec.kind) -> Manifest:
    """Deleting the resource deletes the object; `controller` keeps others from adopting it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
