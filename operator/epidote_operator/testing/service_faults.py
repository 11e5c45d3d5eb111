"""This file is about spoiling a valid service in one known way, and which field is to be named."""

from collections.abc import Callable

from epidote_operator.testing.faults import Fault, Spec, all_of, drop_field, set_field, wrong


def _two_owners(spec: Spec) -> None:
    spec["pool"]["workers"] = spec["pool"]["maxWorkers"]
    spec["scaling"]["owner"] = "Operator"


def _gpu(spec: Spec, budget: int, least: int) -> None:
    spec["pool"].pop("workers", None)
    spec["pool"] |= {"device": "Cuda", "gpusPerWorker": 2, "gpuBudget": budget, "minWorkers": least}


_ENCODERS = [{"name": "Encode", "minWorkers": 3, "maxWorkers": 2}]
_WITH_IMAGE: Callable[[Spec], None] = all_of(
    set_field("model.modalities", ["Text", "Image"]),
    set_field("groups", []),
    set_field("slo.perModality", []),
    set_field("ratios", []),
)
_FEW = [{"name": "Prefill", "maxWorkers": 1}, {"name": "Decode", "maxWorkers": 1}]
_BOUND = [{"name": "Prefill", "maxWorkers": 2}, {"name": "Decode", "minWorkers": 4}]
_GUARD = [{"numerator": "Prefill", "denominator": "Decode", "minPercent": 100}]

FAULTS: tuple[Fault, ...] = (
    Fault(name="no model", path="spec.model", spoil=drop_field("model"), schema=True),
    Fault(name="no uri", path="spec.model.uri", spoil=drop_field("model.uri"), schema=True),
    Fault(
        name="no maximum",
        path="spec.pool.maxWorkers",
        spoil=drop_field("pool.maxWorkers"),
        schema=True,
    ),
    Fault(
        name="no target",
        path="spec.slo.ttftMilliseconds",
        spoil=drop_field("slo.ttftMilliseconds"),
        schema=True,
    ),
    wrong("model.uri", "", schema=True),
    wrong("model.uri", "s3://bucket/model"),
    wrong("model.uri", "builtin://gpt-5"),
    wrong("model.uri", "hf://only-a-name"),
    wrong("model.uri", "hf://Ünïcode/模型"),
    wrong("model.uri", "hf://owner/name@"),
    wrong("model.uri", "pvc://模型/x"),
    wrong("model.uri", "pvc://Upper/x"),
    wrong("model.uri", "file://../etc"),
    wrong("model.uri", "pvc://models/../../etc"),
    wrong("model.modalities", [], schema=True),
    wrong("model.modalities", ["Text", "Smell"], schema=True, at="model.modalities[1]"),
    wrong("model.maxModelLength", 0, schema=True),
    wrong("model.dtype", "float16", schema=True),
    wrong("model.name", "-x", schema=True),
    wrong("model.aliases", ["a", "a"], at="model.aliases[1]", schema=True),
    wrong("model.aliases", ["a,b"], at="model.aliases[0]", schema=True),
    wrong("image", "Not An Image!!", schema=True),
    wrong("image", "registry.example.com/worker:", schema=True),
    wrong("pool.device", "TPU", schema=True),
    wrong("pool.maxWorkers", 0, schema=True),
    wrong("pool.maxWorkers", "8", schema=True),
    wrong("pool.maxWorkers", 5000, schema=True),
    wrong("pool.minWorkers", -1, schema=True),
    wrong("pool.minWorkers", 1000),
    wrong("pool.cpuThreads", 1.5, schema=True),
    wrong("pool.gpuResourceName", "gpu", schema=True),
    wrong("pool.gpusPerWorker", 99, schema=True),
    wrong("pool.kvBlocks", 0, schema=True),
    wrong("pool.tensorParallelSize", 0, schema=True),
    wrong("model.kvCacheDtype", "Int4", schema=True),
    wrong("model.kvTransferDtype", "Bfloat16", schema=True),
    wrong("model.quantization", "Awq", schema=True),
    wrong("pool.gpuMemoryUtilization", 0, schema=True),
    wrong("pool.gpuMemoryUtilization", 1.01, schema=True),
    wrong("pool.gpuMemoryUtilization", "0.9", schema=True),
    Fault(
        name="GPU memory of a CPU pool",
        path="spec.pool.gpuMemoryUtilization",
        spoil=set_field("pool", {"device": "Cpu", "maxWorkers": 1000, "gpuMemoryUtilization": 1}),
    ),
    Fault(
        name="8 bits where a CPU has no product for them",
        path="spec.model.quantization",
        spoil=all_of(
            set_field("pool", {"device": "Cpu", "maxWorkers": 1000}),
            set_field("model.dtype", "Bfloat16"),
            set_field("model.quantization", "Int8"),
        ),
    ),
    Fault(
        name="KV codes that are coded again",
        path="spec.model.kvTransferDtype",
        spoil=all_of(
            set_field("model.kvCacheDtype", "Int8"), set_field("model.kvTransferDtype", "Fp8")
        ),
    ),
    Fault(
        name="whole experts on one GPU",
        path="spec.experts.parallel",
        spoil=all_of(
            set_field("pool.tensorParallelSize", 1), set_field("experts", {"parallel": True})
        ),
    ),
    Fault(
        name="slots of experts that are cut",
        path="spec.experts.redundantExperts",
        spoil=set_field("experts", {"redundantExperts": 4}),
    ),
    wrong(
        "pool.resources",
        {"requests": {"cpu": "lots"}},
        at="pool.resources.requests.cpu",
        schema=True,
    ),
    wrong("pool.template", {"metadata": {"name": "x"}}, at="pool.template.metadata.name"),
    wrong(
        "pool.template",
        {"metadata": {"labels": {"epidote.dev/role": "x"}}},
        at="pool.template.metadata.labels.epidote.dev/role",
    ),
    wrong(
        "pool.template",
        {"spec": {"restartPolicy": "Always"}},
        at="pool.template.spec.restartPolicy",
    ),
    wrong(
        "pool.template",
        {"spec": {"containers": [{"image": "x"}]}},
        at="pool.template.spec.containers[0].name",
    ),
    wrong(
        "gateway.template",
        {"spec": {"tolerations": "x"}},
        at="gateway.template.spec.tolerations",
    ),
    wrong(
        "cluster.head.template",
        {"spec": {"containers": [{"name": "head", "env": ["A=1"]}]}},
        at="cluster.head.template.spec.containers[0].env[0]",
    ),
    wrong(
        "pool.template",
        {"spec": {"terminationGracePeriodSeconds": 5}},
        at="pool.template.spec.terminationGracePeriodSeconds",
    ),
    wrong("slo.ttftMilliseconds", 0, schema=True),
    wrong("slo.tpotMilliseconds", -5, schema=True),
    wrong("slo.attainmentPercent", 100, schema=True),
    wrong("scaling.mode", "auto", schema=True),
    wrong("scaling.tickSeconds", 0, schema=True),
    wrong("scaling.shrinkWindowSeconds", "300s", schema=True),
    wrong("scaling", {"metricsTimeoutSeconds": 1}, at="scaling.metricsTimeoutSeconds"),
    wrong(
        "scaling.pressure",
        {"enterLoadPercent": 50, "leaveLoadPercent": 50},
        at="scaling.pressure.leaveLoadPercent",
    ),
    wrong("gateway.replicas", 0, schema=True),
    wrong("gateway.settings", {"no_such": "1"}, at="gateway.settings.no_such"),
    wrong("gateway.settings", {"max_queue": "many"}, at="gateway.settings.max_queue"),
    wrong("gateway.settings", {"admin_key": "x"}, at="gateway.settings.admin_key"),
    wrong("gateway.settings", {"ADMIN_KEY": "x"}, at="gateway.settings.ADMIN_KEY"),
    wrong("gateway.service", {"port": 70_000}, at="gateway.service.port", schema=True),
    wrong("metrics.source", "Guess", schema=True),
    wrong("metrics.prometheusUrl", "prometheus:9090", schema=True),
    wrong("cluster.provider", "Slurm", schema=True),
    wrong("roles", [{"name": "Decode", "minWorkers": 1}] * 2, at="roles[1].name", schema=True),
    wrong("roles", [{"name": "All"}], at="roles[0].name", schema=True),
    wrong("ratios", [{"numerator": "Decode", "denominator": "Decode"}], at="ratios[0].denominator"),
    wrong(
        "ratios",
        [{"numerator": "Encode", "denominator": "Decode", "minPercent": 9, "maxPercent": 8}],
        at="ratios[0].minPercent",
    ),
    Fault(
        name="crossed role",
        path="spec.roles[0].minWorkers",
        spoil=all_of(_WITH_IMAGE, set_field("roles", _ENCODERS)),
    ),
    Fault(
        name="role that text has not",
        path="spec.roles[0].name",
        spoil=all_of(
            _WITH_IMAGE,
            set_field("model.modalities", ["Text"]),
            set_field("roles", [{"name": "Encode"}]),
        ),
    ),
    Fault(
        name="target of a modality not served",
        path="spec.slo.perModality[0].modality",
        spoil=all_of(
            _WITH_IMAGE,
            set_field(
                "slo.perModality",
                [{"modality": "Audio", "ttftMilliseconds": 1, "tpotMilliseconds": 1}],
            ),
        ),
    ),
    Fault(
        name="modality without a group",
        path="spec.groups",
        spoil=all_of(_WITH_IMAGE, set_field("groups", [{"name": "a", "modalities": ["Text"]}])),
    ),
    Fault(
        name="modality in two groups",
        path="spec.groups[1].modalities[1]",
        spoil=all_of(
            _WITH_IMAGE,
            set_field(
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
        spoil=all_of(set_field("pool.device", "Cpu"), set_field("pool.gpusPerWorker", 1)),
    ),
    Fault(
        name="no GPU of a GPU pool",
        path="spec.pool.gpusPerWorker",
        spoil=all_of(set_field("pool.device", "Cuda"), set_field("pool.gpusPerWorker", 0)),
    ),
    Fault(
        name="fewer GPUs than the model is cut over",
        path="spec.pool.gpusPerWorker",
        spoil=all_of(
            set_field("pool.device", "Cuda"),
            set_field("pool.gpusPerWorker", 2),
            set_field("pool.tensorParallelSize", 4),
        ),
    ),
    Fault(
        name="pool smaller than its roles",
        path="spec.pool.maxWorkers",
        spoil=all_of(
            _WITH_IMAGE,
            set_field("roles", []),
            set_field("pool", {"device": "Cpu", "minWorkers": 0, "maxWorkers": 2}),
        ),
    ),
    Fault(
        name="roles smaller than the pool",
        path="spec.roles",
        spoil=all_of(
            _WITH_IMAGE,
            set_field("model.modalities", ["Text"]),
            set_field("roles", _FEW),
            set_field("pool", {"device": "Cpu", "minWorkers": 3, "maxWorkers": 9}),
        ),
    ),
    Fault(
        name="ratio that no split meets",
        path="spec.ratios",
        spoil=all_of(
            _WITH_IMAGE,
            set_field("roles", _BOUND),
            set_field("ratios", _GUARD),
            set_field("pool", {"device": "Cpu", "minWorkers": 1, "maxWorkers": 20}),
        ),
    ),
)

# What only the API server can say: it is asked before the service is stored.
SERVER_FAULTS: tuple[Fault, ...] = (
    wrong(
        "pool.template",
        {"spec": {"dnsPolicy": "Nope"}},
        at="pool.template.spec.dnsPolicy",
    ),
    wrong(
        "cluster.head.template",
        {"spec": {"tolerations": [{"key": "gpu", "operator": "Perhaps"}]}},
        at="cluster.head.template.spec.tolerations[0].operator",
    ),
    wrong(
        "gateway.template",
        {"spec": {"volumes": [{"name": "Not_A_Name", "emptyDir": {}}]}},
        at="gateway.template.spec.volumes[0].name",
    ),
    wrong(
        "gateway.service",
        {"annotations": {"not a name!": "x"}},
        at="gateway.service.annotations",
    ),
)
