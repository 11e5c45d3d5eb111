"""This file is about what kopf watches and keeps in memory, so that ticks need not list.

Only what ticks read is kept of a pod: a thousand of them cost a few megabytes.

There are no timers and no daemons: kopf gives every resource that has one a finalizer, and a
service could then not be deleted while no operator runs. `ticker` walks these indices instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import kopf

from epidote_operator.resources.labels import COMPONENT, LOAD_TEST, SERVICE
from epidote_operator.spec.field_model import GROUP, VERSION

NAMES = ("pods", "services", "cache_policies", "load_tests", "jobs")
POD_METADATA = (
    *("name", "namespace", "uid", "labels", "annotations", "creationTimestamp"),
    "ownerReferences",
)


def narrow(settings: kopf.OperatorSettings) -> None:
    """Have the server send our pods and Jobs alone, and nothing of CRDs and namespaces.

    Labels given to an index are compared here, after everybody's pods have been sent, and kopf
    keeps each one's essence. What resources there are is looked up once, which needs no rights.
    """
    settings.watching.label_selectors["", "v1", "pods"] = SERVICE
    settings.watching.label_selectors["batch", "v1", "jobs"] = LOAD_TEST
    settings.scanning.disabled = True


def register(registry: kopf.OperatorRegistry) -> None:
    """Add every index to a registry."""
    kopf.index("", "v1", "pods", labels={SERVICE: kopf.PRESENT}, registry=registry)(pods)
    for plural, function in (
        ("multimodalservices", services),
        ("cachepolicies", cache_policies),
        ("loadtests", load_tests),
    ):
        kopf.index(GROUP, VERSION, plural, registry=registry)(function)
    kopf.index("batch", "v1", "jobs", labels={LOAD_TEST: kopf.PRESENT}, registry=registry)(jobs)


def pods(*, namespace: str | None, body: kopf.Body, **_: Any) -> Mapping[Any, Any]:
    """(namespace, service, component) → pods."""
    labels = body["metadata"].get("labels", {})
    return {(namespace, labels[SERVICE], labels.get(COMPONENT, "")): slim_pod(body)}


def services(*, namespace: str | None, name: str, body: kopf.Body, **_: Any) -> Mapping[Any, Any]:
    """(namespace, name) → the MultimodalService."""
    return {(namespace, name): dict(body)}


def cache_policies(
    *, namespace: str | None, name: str, body: kopf.Body, **_: Any
) -> Mapping[Any, Any]:
    """(namespace, name) → the CachePolicy."""
    return {(namespace, name): dict(body)}


def load_tests(*, namespace: str | None, name: str, body: kopf.Body, **_: Any) -> Mapping[Any, Any]:
    """(namespace, name) → the LoadTest."""
    return {(namespace, name): dict(body)}


def jobs(*, namespace: str | None, body: kopf.Body, **_: Any) -> Mapping[Any, Any]:
    """(namespace, LoadTest) → its Job."""
    return {(namespace, body["metadata"]["labels"][LOAD_TEST]): dict(body)}


def slim_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """What ticks read of a pod."""
    metadata, status = pod["metadata"], pod.get("status", {})
    kept = {key: metadata[key] for key in POD_METADATA if key in metadata}
    if "deletionTimestamp" in metadata:
        kept["deletionTimestamp"] = metadata["deletionTimestamp"]
    return {
        "metadata": kept,
        "status": {
            **{key: status[key] for key in ("phase", "podIP", "conditions") if key in status},
            **_restarts(status.get("containerStatuses")),
        },
    }


def _restarts(statuses: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    if not statuses:
        return {}
    return {"containerStatuses": [_slim_container(item) for item in statuses]}


def _slim_container(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: status[key] for key in ("name", "restartCount") if key in status}
    waiting = (status.get("state") or {}).get("waiting") or {}
    if reason := waiting.get("reason"):
        kept["state"] = {"waiting": {"reason": reason}}
    if ended := (status.get("lastState") or {}).get("terminated"):
        told = {key: ended[key] for key in ("exitCode", "reason", "message") if key in ended}
        kept["lastState"] = {"terminated": told}
    return kept
