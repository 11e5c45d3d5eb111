"""This file is about what keeps a fleet safe: accounts, secrets, network, disruption budgets."""

from collections.abc import Collection

from epidote_operator.resources.commands import HTTP_PORT
from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.labels import LOAD_TEST, SERVICE, Component, selector

POLICY_V1 = "policy/v1"  # Kubernetes 1.21 and later
POLICY_BETA = "policy/v1beta1"
NAMESPACE_NAME = "kubernetes.io/metadata.name"  # a label every namespace has, since 1.21


def service_account(fleet: Fleet) -> Manifest | None:
    """An account without rights and without a token; None if the owner named one."""
    return own_account(fleet) if fleet.spec.cluster.service_account_name is None else None


def own_account(fleet: Fleet) -> Manifest | None:
    """The account that a fleet has, or would have; None if the owner named just that one."""
    if fleet.spec.cluster.service_account_name == fleet.own_account:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": fleet.metadata(fleet.own_account),
        "automountServiceAccountToken": False,
    }


def internal_secret(fleet: Fleet, *, admin_key: str, ray_token: str) -> Manifest:
    """The keys of the fleet's own traffic. Made once, by the operator, never shown."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": fleet.metadata(fleet.secret),
        "type": "Opaque",
        "stringData": {"admin-key": admin_key, "ray-token": ray_token},
    }


def disruption_budgets(
    fleet: Fleet, *, desired_workers: int, api_versions: Collection[str] = (POLICY_V1,)
) -> list[Manifest]:
    """One worker, and one gateway, at a time may be evicted.

    `desired_workers` makes the workers' budget a number: pods without a Deployment have no other.
    """
    version = POLICY_V1 if POLICY_V1 in api_versions else POLICY_BETA
    least = {"minAvailable": max(0, desired_workers - 1)}
    return [
        _budget(fleet, Component.WORKER, version, least),
        _budget(fleet, Component.GATEWAY, version, {"maxUnavailable": 1}),
    ]


def _budget(fleet: Fleet, component: Component, version: str, allowed: dict[str, int]) -> Manifest:
    return {
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": fleet.metadata(f"{fleet.name}-{component.value}", component),
        "spec": {"selector": {"matchLabels": selector(fleet.name, component)}, **allowed},
    }


def network_policies(fleet: Fleet) -> list[Manifest]:
    """Workers and head hear the fleet and the operator; gateways hear clients as well."""
    return every_network_policy(fleet) if fleet.spec.network.policy else []


def every_network_policy(fleet: Fleet) -> list[Manifest]:
    """Those that a service has, or would have: whoever does not want them must find them."""
    ours = {"podSelector": {"matchLabels": {SERVICE: fleet.name}}}
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: fleet.defaults.operator_namespace}},
        "podSelector": {"matchLabels": dict(fleet.defaults.operator_labels)},
    }
    clients = [
        {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}}
        for name in fleet.spec.network.client_namespaces
    ]
    tests = {"podSelector": {"matchExpressions": [{"key": LOAD_TEST, "operator": "Exists"}]}}
    http = [{"port": HTTP_PORT, "protocol": "TCP"}]
    inside = [{"from": [ours, operator]}]
    outside: Manifest = {"ports": http, **({"from": [*clients, tests]} if clients else {})}
    return [
        _policy(fleet, Component.HEAD, inside),
        _policy(fleet, Component.WORKER, inside),
        _policy(fleet, Component.GATEWAY, [*inside, outside]),
    ]


def _policy(fleet: Fleet, component: Component, ingress: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": fleet.metadata(f"{fleet.name}-{component.value}", component),
        "spec": {
            "podSelector": {"matchLabels": selector(fleet.name, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
