"""The CEL rules in the CRDs compile, hold for good specs, and name the field of bad ones."""

import copy
import json
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_operator.spec.crds import RESOURCES, SERVICE, Resource, crd
from epidote_operator.testing.faults import Fault, Spec, spoiled
from epidote_operator.testing.generated_services import service
from epidote_operator.testing.service_faults import FAULTS

# What a schema can't say and CEL does; the rest of the faults is the webhook's alone.
IN_CEL = {
    "crossed role",
    "two owners",
    "budget below minimum",
    "GPUs of a CPU pool",
    "no GPU of a GPU pool",
    "fewer GPUs than the model is cut over",
    "pool.minWorkers=1000",
    "scaling={'metricsTimeoutSeconds': 1}",
    "scaling.pressure={'enterLoadPercent': 50, 'leaveLoadPerce",
    "KV codes that are coded again",
    "GPU memory of a CPU pool",
    "8 bits where a CPU has no product for them",
    "whole experts on one GPU",
    "slots of experts that are cut",
    "ratios=[{'numerator': 'Decode', 'denominator': ",
    "ratios=[{'numerator': 'Encode', 'denominator': ",
}


@cache
def compiled(rule: str) -> Any:
    return cel.compile(rule)


def root(resource: Resource) -> dict[str, Any]:
    schema: dict[str, Any] = crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """As the API server fills them in, before it evaluates rules."""
    if isinstance(value, dict):
        for name, item in schema.get("properties", {}).items():
            if name not in value and "default" in item:
                value[name] = copy.deepcopy(item["default"])
            if name in value:
                with_defaults(item, value[name])
    elif isinstance(value, list):
        for entry in value:
            with_defaults(schema.get("items", {}), entry)
    return value


def failures(schema: dict[str, Any], new: Any, old: Any, path: str) -> Iterator[str]:
    """Paths of the rules that don't hold; rules with `oldSelf` need an old value."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        if not compiled(rule["rule"]).execute({"self": new, "oldSelf": old}):
            yield f"{path}{rule.get('fieldPath', '')}"
    if isinstance(new, dict):
        for name, item in schema.get("properties", {}).items():
            if name in new:
                before = old.get(name) if isinstance(old, dict) else None
                yield from failures(item, new[name], before, f"{path}.{name}")
    elif isinstance(new, list):
        for number, entry in enumerate(new):
            yield from failures(schema["items"], entry, None, f"{path}[{number}]")


SPEC = root(SERVICE)["properties"]["spec"]


def broken(spec: Spec, old: Spec | None = None) -> list[str]:
    schema = SPEC
    filled = [
        None if item is None else with_defaults(schema, json.loads(json.dumps(item)))
        for item in (spec, old)
    ]
    return list(failures(schema, filled[0], filled[1], "spec"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_rule_holds_for_a_valid_service(seed: int) -> None:
    spec = service(Random(seed))
    assert broken(spec) == []
    assert broken(spec, spec) == []


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if not fault.schema], ids=lambda fault: fault.name
)
def test_what_cel_can_say_is_said_at_the_right_field(fault: Fault) -> None:
    found = broken(spoiled(service(Random(3)), fault))
    assert (fault.path in found) == (fault.name in IN_CEL)


def test_what_can_not_change_is_refused_on_update_alone() -> None:
    old = {
        "model": {"uri": "builtin://demo"},
        "pool": {"maxWorkers": 8},
        "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
    }
    new = {**old, "cluster": {"provider": "KubeRay"}}
    assert broken(new) == []
    assert broken(new, old) == ["spec.cluster.provider"]


@pytest.mark.parametrize(
    ("name", "good"), [("chat", True), ("Chat", False), ("4you", False), ("x" * 41, False)]
)
def test_names_are_judged_by_every_kind(name: str, good: bool) -> None:
    for resource in RESOURCES:
        (rule,) = root(resource)["x-kubernetes-validations"]
        assert compiled(rule["rule"]).execute({"self": {"metadata": {"name": name}}}) is good
