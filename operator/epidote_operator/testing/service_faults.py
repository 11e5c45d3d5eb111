"""This file is about spoiling a valid service in one known way, and which field is to be named."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to spoil a spec; `path` is the field to be named.

    `schema`: the API server's schema finds it without a webhook, too.
    """

    name: str
    path: str
    spoil: Callable[[Spec], None]
    schema: bool = False


def spoiled(spec: Spec, fault: Fault) -> Spec:
    """A copy of `spec` with that fault."""
    found = copy.deepcopy(spec)
    fault.spoil(found)
    return found


def _set(path: str, value: Any) -> Callable[[Spec], None]:
    def spoil(spec: Spec) -> None:
        *parents, last = path.split(".")
        for name in parents:
            spec = spec.setdefault(name, {})
        spec[last] = value

    return spoil


def _drop(path: str) -> Callable[[Spec], None]:
    def spoil(spec: Spec) -> None:
        *parents, last = path.split(".")
        for name in parents:
            spec = spec[name]
        del spec[last]

    return spoil


def _wrong(path: str, value: Any, *, schema: bool = False, at: str | None = None) -> Fault:
    return Fault(
        name=f"{path}={value!r:.40}",
        path=f"spec.{at or path}",
        spoil=_set(path, value),
        schema=schema,
    )


def _all(*steps: Callable[[Spec], None]) -> Callable[[Spec], None]:
    def spoil(spec: Spec) -> None:
        for step in steps:
            step(spec)

    return spoil


def _two_owners(spec: Spec) -> None:
    spec["pool"]["workers"] = spec["pool"]["maxWorkers"]
    spec["scaling"]["owner"] = "Operator"


def _gpu(spec: Spec, budget: int, least: int) -> None:
    spec["pool"].pop("workers", None)
    spec["pool"] |= {"device": "Cuda", "gpusPerWorker": 2, "gpuBudget": budget, "minWorkers": least}


_ENCODERS = [{"name": "Encode", "minWorkers": 3, "maxWorkers": 2}]
_WITH_IMAGE: Callable[[Spec], None] = _all(
    _set("model.modalities", ["Text", "Image"]),
    _set("groups", []),
    _set("slo.perModality", []),
    _set("ratios", []),
)
_FEW = [{"name": "Prefill", "maxWorkers": 1}, {"name": "Decode", "maxWorkers": 1}]
_BOUND = [{"name": "Prefill", "maxWorkers": 2}, {"name": "Decode", "minWorkers": 4}]
_GUARD = [{"numerator": "Prefill", "denominator": "Decode", "minPercent": 100}]

FAULTS: tuple[Fault, ...] = (
    Fault(name="no model", path="spec.model", spoil=_drop("model"), schema=True),
    Fault(name="no uri", path="spec.model.uri", spoil=_drop("model.uri"), schema=True),
    Fault(
        name="no maximum",
        path="spec.pool.maxWorkers",
        spoil=_drop("pool.maxWorkers"),
        schema=True,
    ),
    Fault(
        name="no target",
        path="spec.slo.ttftMilliseconds",
        spoil=_drop("slo.ttftMilliseconds"),
        schema=True,
    ),
    _wrong("model.uri", "", schema=True),
    _wrong("model.uri", "s3://bucket/model"),
    _wrong("model.uri", "builtin://gpt-5"),
    _wrong("model.uri", "hf://only-a-name"),
    _wrong("model.uri", "pvc://Upper/x"),
    _wrong("model.uri", "file://../etc"),
    _wrong("model.uri", "pvc://models/../../etc"),
    _wrong("model.modalities", [], schema=True),
    _wrong("model.modalities", ["Text", "Smell"], schema=True, at="model.modalities[1]"),
    _wrong("model.maxModelLength", 0, schema=True),
    _wrong("model.dtype", "float16", schema=True),
    _wrong("model.name", "-x", schema=True),
    _wrong("model.aliases", ["a", "a"], at="model.aliases[1]", schema=True),
    _wrong("image", "Not An Image!!", schema=True),
    _wrong("image", "registry.example.com/worker:", schema=True),
    _wrong("pool.device", "TPU", schema=True),
    _wrong("pool.maxWorkers", 0, schema=True),
    _wrong("pool.maxWorkers", "8", schema=True),
    _wrong("pool.maxWorkers", 5000, schema=True),
    _wrong("pool.minWorkers", -1, schema=True),
    _wrong("pool.minWorkers", 1000),
    _wrong("pool.cpuThreads", 1.5, schema=True),
    _wrong("pool.gpuResourceName", "gpu", schema=True),
    _wrong("pool.gpusPerWorker", 99, schema=True),
    _wrong("pool.kvBlocks", 0, schema=True),
    _wrong("pool.tensorParallelSize", 0, schema=True),
    _wrong("model.kvCacheDtype", "Int4", schema=True),
    _wrong(
        "pool.resources",
        {"requests": {"cpu": "lots"}},
        at="pool.resources.requests.cpu",
        schema=True,
    ),
    _wrong("pool.template", {"metadata": {"name": "x"}}, at="pool.template.metadata.name"),
    _wrong(
        "pool.template",
        {"metadata": {"labels": {"epidote.dev/role": "x"}}},
        at="pool.template.metadata.labels.epidote.dev/role",
    ),
    _wrong(
        "pool.template",
        {"spec": {"restartPolicy": "Always"}},
        at="pool.template.spec.restartPolicy",
    ),
    _wrong(
        "pool.template",
        {"spec": {"containers": [{"image": "x"}]}},
        at="pool.template.spec.containers[0].name",
    ),
    _wrong(
        "gateway.template",
        {"spec": {"tolerations": "x"}},
        at="gateway.template.spec.tolerations",
    ),
    _wrong(
        "cluster.head.template",
        {"spec": {"containers": [{"name": "head", "env": ["A=1"]}]}},
        at="cluster.head.template.spec.containers[0].env[0]",
    ),
    _wrong(
        "pool.template",
        {"spec": {"terminationGracePeriodSeconds": 5}},
        at="pool.template.spec.terminationGracePeriodSeconds",
    ),
    _wrong("slo.ttftMilliseconds", 0, schema=True),
    _wrong("slo.tpotMilliseconds", -5, schema=True),
    _wrong("slo.attainmentPercent", 100, schema=True),
    _wrong("scaling.mode", "auto", schema=True),
    _wrong("scaling.tickSeconds", 0, schema=True),
    _wrong("scaling.shrinkWindowSeconds", "300s", schema=True),
    _wrong("scaling", {"metricsTimeoutSeconds": 1}, at="scaling.metricsTimeoutSeconds"),
    _wrong(
        "scaling.pressure",
        {"enterLoadPercent": 50, "leaveLoadPercent": 50},
        at="scaling.pressure.leaveLoadPercent",
    ),
    _wrong("gateway.replicas", 0, schema=True),
    _wrong("gateway.settings", {"no_such": "1"}, at="gateway.settings.no_such"),
    _wrong("gateway.settings", {"max_queue": "many"}, at="gateway.settings.max_queue"),
    _wrong("gateway.settings", {"admin_key": "x"}, at="gateway.settings.admin_key"),
    _wrong("gateway.service", {"port": 70_000}, at="gateway.service.port", schema=True),
    _wrong("metrics.source", "Guess", schema=True),
    _wrong("metrics.prometheusUrl", "prometheus:9090", schema=True),
    _wrong("cluster.provider", "Slurm", schema=True),
    _wrong("roles", [{"name": "Decode", "minWorkers": 1}] * 2, at="roles[1].name", schema=True),
    _wrong("roles", [{"name": "All"}], at="roles[0].name", schema=True),
    _wrong(
        "ratios", [{"numerator": "Decode", "denominator": "Decode"}], at="ratios[0].denominator"
    ),
    _wrong(
        "ratios",
        [{"numerator": "Encode", "denominator": "Decode", "minPercent": 9, "maxPercent": 8}],
        at="ratios[0].minPercent",
    ),
    Fault(
        name="crossed role",
        path="spec.roles[0].minWorkers",
        spoil=_all(_WITH_IMAGE, _set("roles", _ENCODERS)),
    ),
    Fault(
        name="role that text has not",
        path="spec.roles[0].name",
        spoil=_all(
            _WITH_IMAGE, _set("model.modalities", ["Text"]), _set("roles", [{"name": "Encode"}])
        ),
    ),
    Fault(
        name="target of a modality not served",
        path="spec.slo.perModality[0].modality",
        spoil=_all(
            _WITH_IMAGE,
            _set(
                "slo.perModality",
                [{"modality": "Audio", "ttftMilliseconds": 1, "tpotMilliseconds": 1}],
            ),
        ),
    ),
    Fault(
        name="modality without a group",
        path="spec.groups",
        spoil=_all(_WITH_IMAGE, _set("groups", [{"name": "a", "modalities": ["Text"]}])),
    ),
    Fault(
        name="modality in two groups",
        path="spec.groups[1].modalities[1]",
        spoil=_all(
            _WITH_IMAGE,
            _set(
                "groups",
                [
                    {"name": "a", "modalities": ["Text"]},
                    {"name": "b", "modalities": ["Image", "Text"]},
                ],
            ),
        ),
    ),
    Fault(name="two owners", path="spec.pool.workers", spoil=_two_owners),
    Fault(
        name="budget below minimum",
        path="spec.pool.gpuBudget",
        spoil=lambda spec: _gpu(spec, budget=1, least=1),
    ),
    Fault(
        name="GPUs of a CPU pool",
        path="spec.pool.gpusPerWorker",
        spoil=_all(_set("pool.device", "Cpu"), _set("pool.gpusPerWorker", 1)),
    ),
    Fault(
        name="no GPU of a GPU pool",
        path="spec.pool.gpusPerWorker",
        spoil=_all(_set("pool.device", "Cuda"), _set("pool.gpusPerWorker", 0)),
    ),
    Fault(
        name="fewer GPUs than the model is cut over",
        path="spec.pool.gpusPerWorker",
        spoil=_all(
            _set("pool.device", "Cuda"),
            _set("pool.gpusPerWorker", 2),
            _set("pool.tensorParallelSize", 4),
        ),
    ),
    Fault(
        name="pool smaller than its roles",
        path="spec.pool.maxWorkers",
        spoil=_all(
            _WITH_IMAGE,
            _set("roles", []),
            _set("pool", {"device": "Cpu", "minWorkers": 0, "maxWorkers": 2}),
        ),
    ),
    Fault(
        name="roles smaller than the pool",
        path="spec.roles",
        spoil=_all(
            _WITH_IMAGE,
            _set("model.modalities", ["Text"]),
            _set("roles", _FEW),
            _set("pool", {"device": "Cpu", "minWorkers": 3, "maxWorkers": 9}),
        ),
    ),
    Fault(
        name="ratio that no split meets",
        path="spec.ratios",
        spoil=_all(
            _WITH_IMAGE,
            _set("roles", _BOUND),
            _set("ratios", _GUARD),
            _set("pool", {"device": "Cpu", "minWorkers": 1, "maxWorkers": 20}),
        ),
    ),
)
