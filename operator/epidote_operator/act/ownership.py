"""This file is about whose an object is, before anything is written to it.

    its controller is the resource that we act for      ours
    its controller is anybody else                      theirs, whatever its labels say
    no controller, and our labels of the same resource  ours again: adopted, since somebody
                                                        orphaned it (`--cascade=orphan`)
    no controller, other labels                         theirs

A resource that was deleted and made again under its name is another one: what the first one owned
is theirs until the garbage collector has taken it away.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.errors import Conflict, KubeError
from epidote_operator.resources.fleet_values import Fleet, owner_reference
from epidote_operator.resources.labels import (
    COMPONENT,
    LOAD_TEST,
    MANAGED_BY,
    REVISION,
    SERVICE,
)

MANAGER = "app.kubernetes.io/managed-by"


class NameTaken(KubeError):
    """An object that we would write is there and belongs to somebody else; it was left alone."""

    reason = "NameTaken"

    def __init__(self, kind: str, name: str, owner: str) -> None:
        super().__init__(
            f"{kind} {name!r} must be free or of this resource, found one {owner}; it is left "
            "alone: rename or delete it, or give this resource another name"
        )
        self.kind, self.name = kind, name


def controller_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference that controls an object; an object has one at most."""
    owners = found["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_worker_of(pod: Mapping[str, Any], uid: str) -> bool:
    """Whether a pod with a service's labels is a worker of the service with this uid.

    KubeRay's pods are controlled by a RayCluster; a pod without a controller is an orphan of ours.
    """
    owner = controller_of(pod)
    return owner is None or owner.get("uid") == uid or owner.get("kind") == "RayCluster"


def is_ours(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `found` may be written as `wanted`, the manifest that we have for its name."""
    ours, theirs = controller_of(wanted), controller_of(found)
    if theirs is not None:
        return ours is not None and theirs.get("uid") == ours["uid"]
    labels = found["metadata"].get("labels") or {}
    meant = wanted["metadata"].get("labels") or {}
    identity = {key: meant[key] for key in (MANAGER, SERVICE, LOAD_TEST) if key in meant}
    named = labels.items() >= identity.items() and meant.get(MANAGER) == MANAGED_BY
    return named and len(identity) > 1


def demand_ours(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `NameTaken`, which says whose it is, unless `is_ours`."""
    if is_ours(found, wanted):
        return
    owner = controller_of(found)
    told = "without an owner" if owner is None else f"of {owner.get('kind')} {owner.get('name')!r}"
    raise NameTaken(str(wanted["kind"]), str(wanted["metadata"]["name"]), told)


def lost_labels(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """Labels that an object of ours is found by, as far as somebody took or changed them.

    A revision is one that it is made from: another one is right, none is taken for the wanted one.
    """
    has, meant = (item["metadata"].get("labels") or {} for item in (found, wanted))
    lost = {key: meant[key] for key in (MANAGER, SERVICE, COMPONENT) if key in meant}
    lost = {key: value for key, value in lost.items() if has.get(key) != value}
    return lost | ({REVISION: meant[REVISION]} if REVISION in meant.keys() - has.keys() else {})


async def take_back(
    api: KubeApi, fleet: Fleet, pods: Mapping[str, Mapping[str, Any]], taken: set[str]
) -> None:
    """Own the worker pods that somebody orphaned: else they would outlive the service.

    `pods` by name. `taken`: uids of those done already, which a cache may not show yet; added to.
    """
    for name, pod in pods.items():
        metadata = pod["metadata"]
        if controller_of(pod) is not None or metadata["uid"] in taken:
            continue
        owners = [*(metadata.get("ownerReferences") or ()), owner_reference(fleet.name, fleet.uid)]
        body = {"metadata": {"uid": metadata["uid"], "ownerReferences": owners}}
        with suppress(Conflict):  # another pod by now
            await api.merge(paths.pod(fleet.namespace, name), body)
        taken.add(metadata["uid"])
