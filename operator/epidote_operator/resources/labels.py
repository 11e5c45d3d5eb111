"""This file is about the labels of our objects: how they are found, and who they belong to."""

from collections.abc import Mapping
from enum import StrEnum

from epidote_core.roles import Role

SERVICE = "epidote.dev/service"
COMPONENT = "epidote.dev/component"
ROLE = "epidote.dev/role"
REVISION = "epidote.dev/revision"
LOAD_TEST = "epidote.dev/load-test"
KEYS = "epidote.dev/keys"  # annotation: the Secret replaces one that other pods were made with
KEYS_DIGEST = "epidote.dev/keys-digest"  # annotation: of the keys that the Secret was made with
HEAD_CHANGES = "epidote.dev/head-changes"  # annotation: of gateways that joined a later head
INTEROP_ROLE = "llm-d.ai/role"  # gateways made for llm-d route by it
MANAGED_BY = "epidote-operator"


class Component(StrEnum):
    """The parts of a fleet."""

    HEAD = "head"
    WORKER = "worker"
    GATEWAY = "gateway"


def selector(service: str, component: Component, revision: str | None = None) -> dict[str, str]:
    """Labels that find the pods of one part of a service, of one revision if given."""
    found = {SERVICE: service, COMPONENT: component.value}
    return found | ({REVISION: revision} if revision is not None else {})


def labels(
    service: str, component: Component | None = None, revision: str | None = None
) -> dict[str, str]:
    """All labels of an object; those of `selector` among them."""
    found = {**_common(service), SERVICE: service}
    if component is not None:
        found |= {"app.kubernetes.io/component": component.value, COMPONENT: component.value}
    return found | ({REVISION: revision} if revision is not None else {})


def load_test_labels(name: str) -> dict[str, str]:
    """The labels of a LoadTest's objects; they belong to no fleet."""
    return {**_common(name), "app.kubernetes.io/component": "load-test", LOAD_TEST: name}


def _common(instance: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "epidote",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/part-of": "epidote",
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }


def role_labels(role: Role) -> dict[str, str]:
    """The labels that say what a worker does; they change while the pod lives."""
    return {ROLE: role.value, INTEROP_ROLE: role.value}


def label_selector(wanted: Mapping[str, str]) -> str:
    """As the API's `labelSelector` takes it.

    >>> label_selector({"a": "b", "c": "d"})
    'a=b,c=d'
    """
    return ",".join(f"{key}={value}" for key, value in wanted.items())
