"""This file is about `provider: KubeRay`: one RayCluster instead of a head and worker pods.

KubeRay creates and watches the pods; the planner's victims are named in `workersToDelete`, and
our own commands run, which the annotation asks for.
Source: KubeRay's ray.io/v1 API (RayCluster, scaleStrategy, overwrite-container-cmd).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.head import head_pod_template
from epidote_operator.resources.labels import Component
from epidote_operator.resources.pods import pod_template, worker_spec
from epidote_operator.resources.ray_port import ray_port

API_VERSION, PLURAL = "ray.io/v1", "rayclusters"
WORKER_GROUP = "workers"
SCALE = ("replicas", "scaleStrategy")  # of a worker group
OWN_COMMAND = {"ray.io/overwrite-container-cmd": "true"}


def ray_cluster(fleet: Fleet, *, workers: int, victims: Sequence[str] = ()) -> Manifest:
    """A RayCluster with `workers` workers; `victims` are the drained pods that leave."""
    pool = fleet.spec.pool
    worker = pod_template(fleet, Component.WORKER, worker_spec(fleet), pool.template)
    metadata = fleet.metadata(fleet.part(Component.HEAD), Component.HEAD, revisioned=True)
    metadata["annotations"] = OWN_COMMAND
    group: Manifest = {
        "groupName": WORKER_GROUP,
        "replicas": workers,
        "minReplicas": 0,
        "maxReplicas": pool.most,
        "rayStartParams": {"num-gpus": str(pool.gpus), "num-cpus": str(pool.cpu_threads)},
        "template": worker,
    }
    if victims:
        group["scaleStrategy"] = {"workersToDelete": list(victims)}
    return {
        "apiVersion": API_VERSION,
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "headGroupSpec": {
                # KubeRay waits for the head at this port before it lets workers start
                "rayStartParams": {"num-cpus": "0", "port": str(ray_port(fleet))},
                "template": head_pod_template(fleet),
            },
            "workerGroupSpecs": [group],
        },
    }


def with_scale_of(cluster: Manifest, found: Mapping[str, Any] | None) -> Manifest:
    """`cluster` with the number of workers, and the victims, that the one on the server has."""
    if found is None:
        return cluster
    known = {group["groupName"]: group for group in found["spec"]["workerGroupSpecs"]}
    groups = []
    for group in cluster["spec"]["workerGroupSpecs"]:
        there = known.get(group["groupName"], {})
        groups.append(group | {name: there[name] for name in SCALE if name in there})
    return {**cluster, "spec": {**cluster["spec"], "workerGroupSpecs": groups}}
