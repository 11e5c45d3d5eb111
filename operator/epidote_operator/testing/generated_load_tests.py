"""This file is about making valid load tests by the thousand, and spoiling them."""

from random import Random
from typing import Any

from epidote_operator.testing.faults import Fault, Spec, drop_field, wrong


def load_test(rng: Random, service: str) -> Spec:
    """A valid spec of a LoadTest: against a URL, or `service`."""
    target: Spec = {"url": "http://127.0.0.1:9"} if rng.random() < 0.5 else {"serviceName": service}
    if rng.random() < 0.2:
        target["apiKey"] = {"name": "client", "key": "token"}
    spec: Spec = {"target": target, "config": _config(rng)}
    if rng.random() < 0.3:
        spec["timeoutSeconds"] = rng.randint(60, 7200)
    if rng.random() < 0.3:
        spec["ttlSecondsAfterFinished"] = rng.randint(0, 86_400)
    if rng.random() < 0.3:
        spec["resources"] = {"requests": {"cpu": "2", "memory": "1Gi"}}
    return spec


def _config(rng: Random) -> Spec:
    kinds: list[dict[str, Any]] = [
        {"rate": rng.randint(1, 20), "duration_s": 60},
        {"kind": "closed", "users": rng.randint(1, 9), "num_requests": 50},
        {"kind": "streams", "streams": [{"rate": 1, "duration_s": 9}]},
    ]
    classes: list[dict[str, Any]] = [
        {"kind": "questions", "images": {"count": rng.randint(0, 2)}},
        {"kind": "lengths", "prompt_tokens": 100, "output_tokens": 20},
        {"kind": "paraphrases", "groups": {"count": 20}},
    ]
    config: Spec = {"arrivals": rng.choice(kinds), "classes": {"one": rng.choice(classes)}}
    if rng.random() < 0.5:
        config["slo"] = {"all": {"objectives": [{"ttft_ms": rng.randint(1, 5000)}]}}
    if rng.random() < 0.3:
        config["seed"] = rng.randint(0, 99)
    if rng.random() < 0.3:
        config["limits"] = {"drain_s": 5}
    return config


LOAD_TEST_FAULTS: tuple[Fault, ...] = (
    Fault(name="no config", path="spec.config", spoil=drop_field("config"), schema=True),
    Fault(name="no target", path="spec.target", spoil=drop_field("target"), schema=True),
    wrong("target", {}),
    wrong("target", {"url": "http://a", "serviceName": "b"}, at="target.url"),
    wrong("target", {"url": "server:8000"}, at="target.url", schema=True),
    wrong("timeoutSeconds", 0, schema=True),
    wrong("waitSeconds", "soon", schema=True),
    wrong("image", "Not An Image!!", schema=True),
    wrong("config.target", {"url": "http://a"}, at="config.target.url"),
    wrong("config.clases", {}),
    wrong("config.arrivals", {"kind": "poisson", "rate": 1}, at="config.arrivals.kind"),
    wrong("config.classes", {}),
    wrong("template", {"metadata": {"name": "x"}}, at="template.metadata.name"),
    wrong("template", {"spec": {"tolerations": "x"}}, at="template.spec.tolerations"),
)
# What only the API server can say.
LOAD_TEST_SERVER_FAULTS: tuple[Fault, ...] = (
    wrong("template", {"spec": {"dnsPolicy": "Nope"}}, at="template.spec.dnsPolicy"),
)
