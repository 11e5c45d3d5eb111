"""A field of a generated pod is told as the field of the spec that it was written in."""

from typing import Any

import pytest

from epidote_operator.resources.field_origins import origin_of, stumbled_on
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.resources.trials import load_test_trials, service_trials
from epidote_operator.spec.parsing import parse_load_test, parse_service

SPEC: dict[str, Any] = {
    "model": {"uri": "builtin://demo"},
    "pool": {
        "maxWorkers": 4,
        "resources": {"requests": {"cpu": "4"}},
        "template": {
            "metadata": {"labels": {"team": "a"}},
            "spec": {
                "dnsPolicy": "Nope",
                "tolerations": [{"key": "gpu", "operator": "Perhaps"}],
                "volumes": [{"name": "more", "emptyDir": {"medium": "Paper"}}],
                "containers": [
                    {"name": "side", "image": "side"},
                    {"name": "worker", "env": [{"name": "A-B", "value": "1"}]},
                ],
            },
        },
    },
    "gateway": {"template": {"spec": {"nodeSelector": {"a": "b"}}}},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
TRIALS = service_trials("chat", "ns", parse_service(SPEC), Defaults())
WORKER, HEAD, GATEWAY, SERVICE = TRIALS
POD = WORKER.manifest["spec"]


def index(entries: list[dict[str, Any]], name: str) -> int:
    return next(number for number, entry in enumerate(entries) if entry["name"] == name)


VOLUME = index(POD["volumes"], "more")
SIDE = index(POD["containers"], "side")
ENV = index(POD["containers"][0]["env"], "A-B")
TEMPLATE = "spec.pool.template"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("spec.dnsPolicy", f"{TEMPLATE}.spec.dnsPolicy"),
        ("spec.tolerations[0].operator", f"{TEMPLATE}.spec.tolerations[0].operator"),
        (f"spec.volumes[{VOLUME}].emptyDir", f"{TEMPLATE}.spec.volumes[0].emptyDir"),
        (f"spec.containers[{SIDE}].ports", f"{TEMPLATE}.spec.containers[0].ports"),
        (f"spec.containers[0].env[{ENV}].name", f"{TEMPLATE}.spec.containers[1].env[0].name"),
        ("spec.containers[0].resources.requests[cpu]", "spec.pool.resources.requests.cpu"),
        ("spec.containers[0].image", "spec.image"),
        ("spec.containers[0].command", "spec.pool"),
        ("spec.volumes[0].name", "spec.pool"),
        ("metadata.labels", f"{TEMPLATE}.metadata.labels"),
        ("metadata.annotations", "spec.pool"),
        (f"spec.containers[{SIDE}].volumeMounts", f"{TEMPLATE}.spec.containers[0].volumeMounts"),
        ("Spec.DNSPolicy", f"{TEMPLATE}.spec.dnsPolicy"),
        ("Spec.Tolerations.Operator", f"{TEMPLATE}.spec.tolerations"),
        ("", "spec.pool"),
    ],
)
def test_each_field_of_a_worker_leads_to_where_it_was_written(field: str, expected: str) -> None:
    assert origin_of(field, WORKER.manifest, WORKER.origin) == expected


def test_head_gateway_and_service_lead_to_their_own_parts() -> None:
    told = [origin_of("spec.hostname", trial.manifest, trial.origin) for trial in TRIALS]
    assert told == ["spec.pool", "spec.cluster.head", "spec.gateway", "spec.gateway.service"]
    selector = origin_of("spec.nodeSelector", GATEWAY.manifest, GATEWAY.origin)
    assert selector == "spec.gateway.template.spec.nodeSelector"
    annotations = origin_of("metadata.annotations", SERVICE.manifest, SERVICE.origin)
    assert annotations == "spec.gateway.service.annotations"


def test_a_load_tests_pod_leads_to_its_template() -> None:
    template = {"spec": {"dnsPolicy": "Nope"}}
    run = {"arrivals": {"rate": 1}, "classes": {"a": {"kind": "questions"}}}
    spec = {"target": {"url": "http://a"}, "config": run, "template": template}
    (trial,) = load_test_trials("run", "ns", parse_load_test(spec), Defaults())
    found = origin_of("spec.dnsPolicy", trial.manifest, trial.origin)
    assert found == "spec.template.spec.dnsPolicy"


def test_nothing_that_is_asked_about_has_a_name_or_an_owner_of_ours() -> None:
    for trial in TRIALS:
        metadata = trial.manifest["metadata"]
        assert metadata["generateName"] == "chat-"
        assert metadata["namespace"] == "ns"
        assert not {"name", "ownerReferences"} & metadata.keys()
        assert "serviceAccountName" not in trial.manifest["spec"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('strict decoding error: unknown field "spec.nodeSelectr"', "spec.nodeSelectr"),
        (
            "json: cannot unmarshal string into Go struct field PodSpec.spec.tolerations of type"
            " []v1.Toleration",
            "spec.tolerations",
        ),
        (
            'Pod in version "v1" cannot be handled as a Pod: v1.Pod.Spec: v1.PodSpec.HostNetwork:'
            " ReadBool: expect t or f",
            "Spec.HostNetwork",
        ),
        ("something else", ""),
    ],
)
def test_what_servers_say_of_an_object_that_they_cannot_read(message: str, field: str) -> None:
    assert stumbled_on(message) == field
