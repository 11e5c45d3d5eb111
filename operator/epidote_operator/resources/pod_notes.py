"""This file is about what the operator writes onto worker pods: their role, and a switch under way.

    label       epidote.dev/role        the role it serves; absent while it may not be routed to
    annotation  epidote.dev/assignment  {"lane", "since"}: where it belongs, since when
    annotation  epidote.dev/switch      a `SwitchIntent`, while there is one
    annotation  epidote.dev/head        the head that it joined: see `status.head`

They are the operator's whole memory of what it does: pods outlive it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epidote_core.roles import Role
from epidote_operator.resources.labels import INTEROP_ROLE, ROLE, role_labels
from epidote_operator.status.fleet import SwitchIntent
from epidote_planner.lane import DEFAULT_GROUP, Lane

GROUP_LABEL = "epidote.dev/group"
ASSIGNMENT = "epidote.dev/assignment"
SWITCH = "epidote.dev/switch"
HEAD = "epidote.dev/head"


@dataclass(frozen=True, kw_only=True)
class PodNotes:
    """The notes of one pod. `since_s` is Unix time."""

    lane: Lane
    since_s: float
    is_labelled: bool
    intent: SwitchIntent | None = None


def assignment(lane: Lane, since_s: float) -> str:
    """The annotation's value."""
    return json.dumps({"lane": lane.key, "since": since_s})


def read_notes(pod: Mapping[str, Any], created_s: float) -> PodNotes:
    """What a pod's metadata say. Notes that somebody has spoilt count as not there.

    Without an assignment the label counts, and without that a worker is a decoder: the role whose
    lack is felt first.
    """
    metadata = pod.get("metadata", {})
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    label = labels.get(ROLE)
    try:
        told = json.loads(annotations[ASSIGNMENT])
        lane, since_s = Lane.parse(told["lane"]), float(told["since"])
    except (KeyError, ValueError, TypeError):
        role = Role(label) if label in set(Role) else Role.DECODE
        lane, since_s = Lane(labels.get(GROUP_LABEL, DEFAULT_GROUP), role), created_s
    try:
        intent = SwitchIntent.from_json(json.loads(annotations[SWITCH]))
    except (KeyError, ValueError, TypeError):
        intent = None
    return PodNotes(lane=lane, since_s=since_s, is_labelled=label == lane.role.value, intent=intent)


def marked(intent: SwitchIntent) -> dict[str, Any]:
    """The merge patch that begins a switch: off the routes, and what is meant to happen."""
    return {
        "metadata": {
            "labels": {ROLE: None, INTEROP_ROLE: None},
            "annotations": {SWITCH: json.dumps(intent.to_json())},
        }
    }


def settled(lane: Lane, now_s: float) -> dict[str, Any]:
    """The merge patch that ends one: where the pod belongs now, and back on the routes."""
    return {
        "metadata": {
            "labels": {**role_labels(lane.role), GROUP_LABEL: lane.group},
            "annotations": {ASSIGNMENT: assignment(lane, now_s), SWITCH: None},
        }
    }
