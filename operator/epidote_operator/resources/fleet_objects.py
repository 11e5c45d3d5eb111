"""This file is about the whole set of a fleet's objects, in an order that is safe to apply."""

from collections.abc import Collection

from epidote_operator.resources.cache_config import cache_config_map
from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.head import (
    gateway_deployment,
    head_deployment,
    head_service,
)
from epidote_operator.resources.kuberay import ray_cluster
from epidote_operator.resources.protection import (
    POLICY_V1,
    disruption_budgets,
    every_network_policy,
    network_policies,
    own_account,
    service_account,
)
from epidote_operator.spec.cluster import Provider


def shared_objects(
    fleet: Fleet, *, desired_workers: int, api_versions: Collection[str] = (POLICY_V1,)
) -> list[Manifest]:
    """What a service has once, whatever its revision; without the gateways' Service, whose
    selector moves when a rollout shifts."""
    account = service_account(fleet)
    return [
        *([account] if account else []),
        *network_policies(fleet),
        *disruption_budgets(fleet, desired_workers=desired_workers, api_versions=api_versions),
    ]


def unwanted_objects(fleet: Fleet, *, shifts: bool) -> list[Manifest]:
    """What the spec asked for once, perhaps, and does not any more.

    `shifts`: no other revision serves, whose pods may be made anew with what it was made with.
    """
    found = [] if fleet.spec.network.policy else every_network_policy(fleet)
    if fleet.spec.cache.policy_name is None:
        found.append(cache_config_map(fleet, {}))
    if shifts and service_account(fleet) is None and (own := own_account(fleet)) is not None:
        found.append(own)
    return found


def revision_objects(fleet: Fleet) -> list[Manifest]:
    """Head and gateways of one revision, workers aside; of KubeRay, a cluster without workers."""
    if fleet.spec.cluster.provider is Provider.KUBERAY:
        return [head_service(fleet), ray_cluster(fleet, workers=0), gateway_deployment(fleet)]
    return [head_service(fleet), head_deployment(fleet), gateway_deployment(fleet)]
