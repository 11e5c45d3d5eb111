"""Changes to a serving fleet: live ones pass, rolling ones warn, impossible ones are refused."""

from itertools import pairwise
from typing import Any

import pytest

from epidote_operator.spec.changes import refused_changes, refused_test_changes, rolling_changes
from epidote_operator.spec.parsing import parse_load_test, parse_service
from epidote_operator.testing.faults import Spec

BASE: Spec = {
    "model": {"uri": "builtin://demo"},
    "pool": {"device": "Cpu", "maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}


CUT = {**BASE, "pool": {**BASE["pool"], "tensorParallelSize": 2}}


def _changed(part: str, **fields: Any) -> Spec:
    return {**BASE, part: {**BASE.get(part, {}), **fields}}


@pytest.mark.parametrize(
    ("new", "path"),
    [
        (_changed("cluster", provider="KubeRay"), "spec.cluster.provider"),
        (_changed("pool", device="Cuda"), "spec.pool.device"),
    ],
)
def test_a_change_that_no_running_fleet_can_make_is_refused(new: Spec, path: str) -> None:
    problems = refused_changes(parse_service(BASE), parse_service(new))
    assert [problem.path for problem in problems] == [path]


@pytest.mark.parametrize(
    ("new", "path"),
    [
        (_changed("model", uri="builtin://smollm2"), "spec.model.uri"),
        ({**BASE, "image": "example.com/worker:2"}, "spec.image"),
        (_changed("pool", kvBlocks=64), "spec.pool.kvBlocks"),
        (_changed("pool", tensorParallelSize=2), "spec.pool.tensorParallelSize"),
        (_changed("model", kvCacheDtype="Fp8"), "spec.model.kvCacheDtype"),
        (_changed("model", kvTransferDtype="Int8"), "spec.model.kvTransferDtype"),
        (_changed("pool", template={"spec": {"priorityClassName": "x"}}), "spec.pool.template"),
    ],
)
def test_a_change_of_the_workers_says_that_they_are_replaced(new: Spec, path: str) -> None:
    warnings = rolling_changes(parse_service(BASE), parse_service(new))
    assert [warning.partition(":")[0] for warning in warnings] == [path]
    assert not refused_changes(parse_service(BASE), parse_service(new))


def test_another_part_of_a_gpu_and_weights_in_8_bits_replace_workers() -> None:
    on_gpus = {**BASE, "pool": {"maxWorkers": 8, "gpuMemoryUtilization": 0.85}}
    old = parse_service(on_gpus)
    model = {"uri": "builtin://demo", "quantization": "Fp8"}
    for new, path in (
        ({**on_gpus, "pool": {"maxWorkers": 8}}, "spec.pool.gpuMemoryUtilization"),
        ({**on_gpus, "pool": {**on_gpus["pool"], "gpuMemoryUtilization": 0.9}},
         "spec.pool.gpuMemoryUtilization"),
        ({**on_gpus, "model": model}, "spec.model.quantization"),
    ):  # fmt: skip
        warnings = rolling_changes(old, parse_service(new))
        assert [warning.partition(":")[0] for warning in warnings] == [path]


def test_whole_experts_and_the_number_of_their_slots_replace_workers() -> None:
    specs = [
        parse_service({**CUT, "experts": {"parallel": slots > 0, "redundantExperts": slots}})
        for slots in (0, 2, 4)
    ]
    paths = [
        [warning.partition(":")[0] for warning in rolling_changes(old, new)]
        for old, new in pairwise(specs)
    ]
    slots = "spec.experts.redundantExperts"
    assert paths == [["spec.experts.parallel", slots], [slots]]


@pytest.mark.parametrize(
    "new",
    [
        _changed("slo", ttftMilliseconds=900),
        _changed("experts", rebalancing="Off", minGainPercent=300, decodeTimePercent=60),
        _changed("pool", maxWorkers=12),
        {**BASE, "roles": [{"name": "Decode", "minWorkers": 2}]},
        {**BASE, "scaling": {"mode": "Advisory"}},
        {**BASE, "cache": {"policyName": "support"}},
    ],
)
def test_a_change_of_the_promise_is_live(new: Spec) -> None:
    old, changed = parse_service(BASE), parse_service(new)
    assert not refused_changes(old, changed)
    assert not rolling_changes(old, changed)


def test_a_load_test_that_ran_keeps_its_question() -> None:
    run = {"arrivals": {"rate": 1}, "classes": {"a": {"kind": "questions"}}}
    old = {"target": {"url": "http://a"}, "config": {**run, "seed": 1}}
    new = {
        "target": {"url": "http://a"},
        "config": {**run, "seed": 2},
        "ttlSecondsAfterFinished": 5,
    }
    problems = refused_test_changes(parse_load_test(old), parse_load_test(new))
    assert [problem.path for problem in problems] == ["spec.config"]
