"""This file is about a worker pod as it is created: the manifest, and its first assignment."""

from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.pod_notes import ASSIGNMENT, GROUP_LABEL, assignment
from epidote_operator.resources.pods import worker_pod
from epidote_planner.lane import Lane


def new_worker(fleet: Fleet, name: str, lane: Lane, now_s: float) -> Manifest:
    """A pod that shall come up in `lane`."""
    pod = worker_pod(fleet, name, lane.role)
    metadata = pod["metadata"]
    metadata["labels"] = {**metadata["labels"], GROUP_LABEL: lane.group}
    metadata["annotations"] = {
        **metadata.get("annotations", {}),
        ASSIGNMENT: assignment(lane, now_s),
    }
    return pod
