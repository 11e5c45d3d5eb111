"""This file is about making valid services by the thousand (`service_faults.py` spoils them).

Plain dicts as `kubectl apply` would send them. `service` is valid by construction: it chooses
a split of workers first and every bound around it.
"""

from random import Random
from typing import Any

Spec = dict[str, Any]
MEDIA = ("Image", "Video", "Audio")


def service(rng: Random) -> Spec:
    """A valid spec of a MultimodalService."""
    modalities = ["Text", *rng.sample(MEDIA, rng.randint(0, 3))]
    groups = _groups(rng, modalities)
    roles = ["Encode", "Prefill", "Decode"] if len(modalities) > 1 else ["Prefill", "Decode"]
    split = {role: rng.randint(1, 5) for role in roles}
    total = max(1, len(groups)) * sum(split.values())
    pool = _pool(rng, total)
    spec: Spec = {
        "model": _model(rng, modalities, pool),
        "pool": pool,
        "slo": _slo(rng, modalities),
        "scaling": _scaling(rng, pool, total),
    }
    listed = rng.sample(roles, rng.randint(0, len(roles)))
    if listed:
        spec["roles"] = [
            {
                "name": role,
                "minWorkers": rng.randint(0, split[role]),
                "maxWorkers": rng.randint(split[role], split[role] + 10),
            }
            for role in listed
        ]
    if rng.random() < 0.5:
        spec["ratios"] = [_ratio(rng, split)]
    if groups:
        spec["groups"] = groups
    if rng.random() < 0.3:
        spec["gateway"] = {"replicas": rng.randint(1, 5), "settings": {"max_queue": "64"}}
    if rng.random() < 0.2:
        spec["cluster"] = {"provider": "KubeRay"}
    return spec


def _model(rng: Random, modalities: list[str], pool: Spec) -> Spec:
    uris = ("builtin://demo", "hf://a/b", "hf://a/b@main", "pvc://models/x/y", "file:///models/a")
    model: Spec = {"uri": rng.choice(uris), "modalities": modalities}
    if rng.random() < 0.3:
        model["dtype"] = rng.choice(("Auto", "Float32", "Bfloat16", "Float16"))
    if rng.random() < 0.3 and pool.get("device") != "Cpu":
        model["quantization"] = rng.choice(("Int8", "Fp8"))
    elif rng.random() < 0.2:
        model |= {"quantization": "Int8", "dtype": "Float16"}
    if rng.random() < 0.3:
        model["aliases"] = [f"alias-{number}" for number in range(rng.randint(1, 4))]
    if model["uri"].startswith("hf://") and rng.random() < 0.5:
        model["hubToken"] = {"name": "hub", "key": "token"}
    return model


def _pool(rng: Random, total: int) -> Spec:
    pool: Spec = {"maxWorkers": total + rng.randint(0, 20), "minWorkers": rng.randint(0, total)}
    if rng.random() < 0.4:
        pool["device"] = "Cpu"
        return pool
    gpus = rng.choice((1, 1, 2, 4, 8))
    if gpus > 1 or rng.random() < 0.3:
        pool["gpusPerWorker"] = gpus
    if rng.random() < 0.3:
        pool["gpuMemoryUtilization"] = rng.choice((1, 0.9, rng.uniform(0.05, 1.0)))
    if rng.random() < 0.5:
        pool["gpuBudget"] = total * gpus + rng.randint(0, 16)
    return pool


def _slo(rng: Random, modalities: list[str]) -> Spec:
    slo: Spec = {
        "ttftMilliseconds": rng.randint(1, 60_000),
        "tpotMilliseconds": rng.randint(1, 2_000),
    }
    if rng.random() < 0.5:
        slo["attainmentPercent"] = rng.randint(1, 99)
    if rng.random() < 0.4:
        slo["perModality"] = [
            {"modality": item, "ttftMilliseconds": 900, "tpotMilliseconds": 40}
            for item in rng.sample(modalities, rng.randint(1, len(modalities)))
        ]
    return slo


def _scaling(rng: Random, pool: Spec, total: int) -> Spec:
    scaling: Spec = {"mode": rng.choice(("Auto", "Advisory", "Off"))}
    if rng.random() < 0.5:
        scaling["tickSeconds"] = rng.randint(1, 60)
    if rng.random() < 0.2:
        scaling["owner"] = "External"
        if rng.random() < 0.7:
            pool["workers"] = total
    if rng.random() < 0.3:
        scaling["pressure"] = {"enterLoadPercent": 120, "leaveLoadPercent": rng.randint(0, 119)}
    return scaling


def _groups(rng: Random, modalities: list[str]) -> list[Spec]:
    """Two groups that both have media, so that both need every role; or none."""
    if len(modalities) < 3 or rng.random() < 0.6:
        return []
    text, *media = modalities
    return [
        {"name": "one", "modalities": [text, media[0]]},
        {"name": "two", "modalities": media[1:]},
    ]


def _ratio(rng: Random, split: dict[str, int]) -> Spec:
    above, below = rng.sample(list(split), 2)
    percent = 100 * split[above] // split[below]
    return {
        "numerator": above,
        "denominator": below,
        "minPercent": rng.randint(0, percent),
        "maxPercent": percent + 1 + rng.randint(0, 300),
    }
