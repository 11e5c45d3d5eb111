"""What the webhook lets in, refuses, and warns of."""

from typing import Any

import kopf
import pytest

from epidote_operator.handlers.admission import judge, register
from epidote_operator.spec.admission import PLURALS, rule_on
from epidote_operator.testing.faults import Spec

GOOD: Spec = {
    "model": {"uri": "builtin://demo"},
    "pool": {"device": "Cpu", "maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
BAD: Spec = {**GOOD, "slo": {"ttftMilliseconds": -1, "tpotMilliseconds": 50}}
SERVICES = "multimodalservices"


def changed(part: str, **fields: Any) -> Spec:
    return {**GOOD, part: {**GOOD.get(part, {}), **fields}}


def test_a_good_service_is_let_in_without_a_word() -> None:
    ruling = rule_on(SERVICES, "chat", GOOD)
    assert not ruling.problems
    assert not ruling.warnings


def test_a_bad_service_and_its_bad_name_are_told_together() -> None:
    paths = [problem.path for problem in rule_on(SERVICES, "Chat", BAD).problems]
    assert paths == ["metadata.name", "spec.slo.ttftMilliseconds"]


def test_a_change_that_replaces_workers_is_let_in_with_a_warning() -> None:
    ruling = rule_on(SERVICES, "chat", changed("model", uri="builtin://smollm2"), GOOD)
    assert not ruling.problems
    assert ruling.warnings[0].startswith("spec.model.uri: every worker is replaced")


def test_a_change_that_no_fleet_can_make_is_refused() -> None:
    ruling = rule_on(SERVICES, "chat", changed("cluster", provider="KubeRay"), GOOD)
    assert "spec.cluster.provider: can't be changed" in ruling.message


def test_an_invalid_service_can_still_lose_its_finalizer() -> None:
    assert not rule_on(SERVICES, "chat", BAD, BAD).problems


def test_out_of_an_invalid_state_every_good_change_leads() -> None:
    assert not rule_on(SERVICES, "chat", changed("pool", device="Cuda"), BAD).problems


def test_a_cache_policy_is_judged_by_the_gateways_own_model() -> None:
    ruling = rule_on("cachepolicies", "desk", {"categories": [{"name": "a", "threshold": 2}]})
    assert [problem.path for problem in ruling.problems] == ["spec.categories[0].threshold"]


def test_a_load_test_keeps_its_question() -> None:
    run = {"arrivals": {"rate": 1}, "classes": {"a": {"kind": "questions"}}}
    old = {"target": {"url": "http://a"}, "config": run}
    ruling = rule_on("loadtests", "t", {**old, "timeoutSeconds": 5}, old)
    assert [problem.path for problem in ruling.problems] == ["spec.timeoutSeconds"]


def test_a_refusal_is_an_admission_error_of_status_422() -> None:
    with pytest.raises(kopf.AdmissionError, match=r"spec.slo.ttftMilliseconds") as refused:
        judge(SERVICES, "chat", {"spec": BAD}, None, [])
    assert refused.value.code == 422


def test_warnings_reach_the_one_who_applies() -> None:
    told: list[str] = []
    judge(SERVICES, "chat", {"spec": changed("pool", kvBlocks=9)}, {"spec": GOOD}, told)
    assert len(told) == 1


def test_every_kind_is_registered_under_its_plural() -> None:
    registry = kopf.OperatorRegistry()
    register(registry)
    handlers = registry._webhooks.get_all_handlers()
    assert sorted(handler.id for handler in handlers) == sorted(PLURALS)


def test_a_disabled_category_that_no_question_can_be_of_is_warned_of() -> None:
    ruling = rule_on("cachepolicies", "desk", {"categories": [{"name": "a", "enabled": False}]})
    assert not ruling.problems
    [warning] = ruling.warnings
    assert warning.startswith("spec.categories[0].exemplars: a is disabled and has none")


@pytest.mark.parametrize(("floor", "warns"), [(0.95, True), (0.9, True), (0.85, False)])
def test_a_floor_that_leaves_a_threshold_no_room_is_warned_of(floor: float, warns: bool) -> None:
    adaptation = {"thresholdStep": 0.05, "thresholdFloor": floor}
    category = {"name": "default", "threshold": 0.9, "loadAdaptation": adaptation}
    ruling = rule_on("cachepolicies", "desk", {"categories": [category]})
    assert not ruling.problems
    told = [w for w in ruling.warnings if "thresholdFloor" in w]
    assert bool(told) == warns
    assert all(w.startswith("spec.categories[0].loadAdaptation.thresholdFloor") for w in told)
