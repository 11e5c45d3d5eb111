"""This file is about objects that the API server won't have: what a spec made of them is no object.

Templates pass through this operator as they are, so that only the API server can say what is wrong
with them. It is told by the field of the service that the object comes from. The same object is
asked for again after a growing time, since nothing but another spec or another server helps; a
different one at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.kube.errors import ApiRefused, KubeError
from epidote_operator.resources.labels import COMPONENT, Component
from epidote_operator.resources.revision import digest

FIRST_WAIT_S, LAST_WAIT_S = 10.0, 300.0
INVALID = (400, 422)
UNTYPED = "typed patch"  # in what servers before 1.22 answer (500) to a field of the wrong type
FIELDS = {
    ("Deployment", Component.HEAD.value): "spec.cluster.head",
    ("Deployment", Component.GATEWAY.value): "spec.gateway",
    ("Service", Component.GATEWAY.value): "spec.gateway.service",
    ("RayCluster", Component.HEAD.value): "spec.cluster",
    ("Pod", Component.WORKER.value): "spec.pool",
}


class RefusedObject(KubeError):
    """The API server says that an object can't be."""

    reason = "InvalidSpec"


def is_invalid(refused: ApiRefused) -> bool:
    """Whether the object itself was refused: not the right to write it, nor the moment."""
    return refused.status in INVALID or (refused.status == 500 and UNTYPED in str(refused))


@dataclass
class _Refusal:
    error: RefusedObject
    made_from: str
    due_s: float
    wait_s: float


@dataclass
class Refusals:
    """What was refused, by name, and when it may be asked for again."""

    _known: dict[str, _Refusal] = field(default_factory=dict)

    def demand_due(self, name: str, manifest: Mapping[str, Any], now_s: float) -> None:
        """Raises `RefusedObject` while this very object was refused a short time ago."""
        known = self._known.get(name)
        if known is not None and known.made_from == _made_from(manifest) and now_s < known.due_s:
            raise known.error

    def note(
        self, name: str, manifest: Mapping[str, Any], refused: ApiRefused, now_s: float
    ) -> RefusedObject:
        """Remember a refusal; returns the error to raise."""
        known, made_from = self._known.get(name), _made_from(manifest)
        repeats = known is not None and known.made_from == made_from
        wait_s = min(LAST_WAIT_S, 2 * known.wait_s) if known and repeats else FIRST_WAIT_S
        error = RefusedObject(_told(manifest, refused))
        self._known[name] = _Refusal(error, made_from, now_s + wait_s, wait_s)
        return error

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def now(self, now_s: float) -> tuple[RefusedObject, ...]:
        """Those that wait; one that was not asked for again when it was due is wanted no more."""
        return tuple(known.error for known in self._known.values() if now_s < known.due_s)


def _made_from(manifest: Mapping[str, Any]) -> str:
    """Pods differ in their names alone."""
    return digest(dict(manifest.get("spec") or {}))


def _told(manifest: Mapping[str, Any], refused: ApiRefused) -> str:
    kind = manifest["kind"]
    component = (manifest["metadata"].get("labels") or {}).get(COMPONENT, "")
    path = FIELDS.get((kind, component), "spec")
    words = str(refused).partition(f"{refused.reason}: ")[2] or str(refused)
    return f"{path}: must make a {kind} that the API server accepts, got: {words}"
