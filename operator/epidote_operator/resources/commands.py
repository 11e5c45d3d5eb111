"""This file is about what the containers of a fleet run, and what they are told.

One place: the workers' side of it is described in docs/workers.md.
"""

from typing import Any

from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.labels import ROLE
from epidote_operator.resources.ray_port import fleet_id, ray_port
from epidote_operator.spec.model_source import (
    KvDtype,
    ModelSource,
    ServedModality,
    parse_source,
)
from epidote_operator.spec.pool import Device

HTTP_PORT = 8000
PROBE_PORT = 8001  # of a worker: /readyz, /metrics
LINGER_S = 5  # proxies and balancers learn that a pod ends when it does, and need a moment
MODELS = "/models"  # where a claim with weights is mounted
HOME = "/home/epidote"
EnvVar = dict[str, Any]


def model_argument(source: ModelSource) -> str:
    """How a worker is told of its model: a name, a directory, or a hub id.

    >>> model_argument(parse_source("pvc://claim/a/b"))
    '/models/a/b'
    """
    match source.kind:
        case "pvc":
            return f"{MODELS}/{source.path}" if source.path else MODELS
        case "hf" if source.revision:
            return f"{source.name}@{source.revision}"
        case _:
            return source.name


def head_command(fleet: Fleet) -> list[str]:
    """The head keeps the fleet's register; nothing computes there.

    The roles are where a fleet starts, and constant: the operator moves them by the admin API, and
    a head that restarted for a new bound would take its fleet along.
    """
    spec = fleet.spec
    takes_media = any(modality is not ServedModality.TEXT for modality in spec.model.modalities)
    roles = "encode=1,prefill=1,decode=1" if takes_media else "prefill=1,decode=1"
    command = [
        *("epidote", "head"),
        f"--model={model_argument(parse_source(spec.model.uri))}",
        f"--roles={roles}",
        "--ray-host=$(POD_IP)",
        f"--ray-port={ray_port(fleet)}",
        "--gateways=0",
        f"--dtype={spec.model.dtype.value.lower()}",
        f"--device={spec.pool.device.value.lower()}",
    ]
    if not takes_media:
        command.append("--text-only")
    if spec.model.kv_cache_dtype is not KvDtype.AUTO:
        command.append(f"--kv-cache-dtype={spec.model.kv_cache_dtype.value.lower()}")
    if spec.model.kv_transfer_dtype is not KvDtype.AUTO:
        command.append(f"--kv-transfer-dtype={spec.model.kv_transfer_dtype.value.lower()}")
    if spec.model.quantization is not None:
        command.append(f"--quantization={spec.model.quantization.value.lower()}")
    if spec.pool.tensor_parallel_size > 1:
        command.append(f"--tensor-parallel-size={spec.pool.tensor_parallel_size}")
    if spec.experts.parallel:
        command.append("--enable-expert-parallel")
        if spec.experts.redundant_experts:
            command.append(f"--num-redundant-experts={spec.experts.redundant_experts}")
    if spec.pool.kv_blocks is not None:
        command.append(f"--kv-blocks={spec.pool.kv_blocks}")
    if spec.pool.gpu_memory_utilization is not None:
        command.append(f"--gpu-memory-utilization={spec.pool.gpu_memory_utilization}")
    if spec.model.max_model_length is not None:
        command.append(f"--max-model-len={spec.model.max_model_length}")
    return command


def worker_command(fleet: Fleet) -> list[str]:
    """A worker is one node of the fleet, with room for one engine."""
    return [
        *("epidote", "worker"),
        f"--head={fleet.head_service}:{ray_port(fleet)}",
        "--host=$(POD_IP)",
        f"--threads={fleet.spec.pool.cpu_threads}",
        f"--drain={fleet.spec.scaling.drain_deadline_seconds}",
        "--probe-host=$(POD_IP)",
        f"--probe-port={PROBE_PORT}",
    ]


def gateway_command(fleet: Fleet) -> list[str]:
    """HTTP for the fleet; it may start before the head does."""
    return [
        *("epidote", "gateway"),
        f"--head={fleet.head_service}:{ray_port(fleet)}",
        "--host=$(POD_IP)",
        f"--port={HTTP_PORT}",
        "--node-host=$(POD_IP)",
        f"--linger={LINGER_S}",
        f"--drain={fleet.spec.scaling.drain_deadline_seconds}",
    ]


def common_environment(fleet: Fleet) -> list[EnvVar]:
    """What every container of the fleet knows: itself, the fleet's secret, the way to the model.

    Revisions share the Secret; that each has a token of its own is made of `EPIDOTE_FLEET`.
    """
    found = [
        {"name": "HOME", "value": HOME},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        {"name": "RAY_AUTH_MODE", "value": "token"},
        _from_secret("RAY_AUTH_TOKEN", fleet.secret, "ray-token"),
        {"name": "EPIDOTE_FLEET", "value": fleet_id(fleet)},
        _from_field("POD_IP", "status.podIP"),
        _from_field("POD_NAME", "metadata.name"),
    ]
    if token := fleet.spec.model.hub_token:
        found.append(_from_secret("HF_TOKEN", token.name, token.key))
    if parse_source(fleet.spec.model.uri).kind != "hf":
        found.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    return found


def worker_environment(fleet: Fleet) -> list[EnvVar]:
    """What a worker knows besides: its role as the pod's label said when it started."""
    found = [
        *common_environment(fleet),
        _from_field("EPIDOTE_ROLE", f"metadata.labels['{ROLE}']"),
        {"name": "OMP_NUM_THREADS", "value": str(fleet.spec.pool.cpu_threads)},
    ]
    if fleet.spec.pool.device is Device.CPU:
        found.append({"name": "CUDA_VISIBLE_DEVICES", "value": ""})
    return found


def gateway_environment(fleet: Fleet) -> list[EnvVar]:
    """The gateway's settings: `EPIDOTE_GATEWAY_*`, see docs/gateway.md."""
    gateway, model = fleet.spec.gateway, fleet.spec.model
    names = ",".join([model.name or fleet.name, *model.aliases])
    found = [
        *common_environment(fleet),
        _from_secret("EPIDOTE_GATEWAY_ADMIN_KEY", fleet.secret, "admin-key"),
        {"name": "EPIDOTE_GATEWAY_SERVED_MODEL_NAMES", "value": names},
    ]
    if keys := gateway.api_keys:
        found.append(_from_secret("EPIDOTE_GATEWAY_API_KEYS", keys.name, keys.key))
    return found + [
        {"name": f"EPIDOTE_GATEWAY_{name.upper()}", "value": value}
        for name, value in sorted(gateway.settings.items())
    ]


def _from_secret(name: str, secret: str, key: str) -> EnvVar:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _from_field(name: str, path: str) -> EnvVar:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
