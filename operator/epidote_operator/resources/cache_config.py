"""This file is about the response cache policy as gateways get it: a ConfigMap, a mounted file.

The file is what a gateway starts with. A change reaches those that run by HTTP at once, and by the
file when the kubelet brings it (within a minute or so).
"""

import json
from collections.abc import Mapping
from typing import Any

from epidote_operator.resources.fleet_values import Fleet, Manifest
from epidote_operator.resources.labels import Component

FOLDER = "/etc/epidote-cache"
FILE = "policy.yaml"
VOLUME = "cache-policy"
VARIABLE = "EPIDOTE_GATEWAY_CACHE_POLICY"


def config_map_name(fleet: Fleet) -> str:
    return f"{fleet.name}-cache-policy"


def cache_config_map(fleet: Fleet, policy: Mapping[str, Any]) -> Manifest:
    """The policy's spec for this service's gateways; JSON is YAML."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": fleet.metadata(config_map_name(fleet), Component.GATEWAY),
        "data": {FILE: json.dumps(dict(policy), indent=2, sort_keys=True)},
    }


def with_cache_policy(fleet: Fleet, spec: Manifest) -> Manifest:
    """The gateway pod's spec with the policy mounted, where the service names one."""
    if fleet.spec.cache.policy_name is None:
        return spec
    mount = {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
    variable = {"name": VARIABLE, "value": f"{FOLDER}/{FILE}"}
    first, *others = spec["containers"]
    container = {
        **first,
        "env": [*first["env"], variable],
        "volumeMounts": [*first["volumeMounts"], mount],
    }
    volume = {"name": VOLUME, "configMap": {"name": config_map_name(fleet)}}
    return {**spec, "containers": [container, *others], "volumes": [*spec["volumes"], volume]}
