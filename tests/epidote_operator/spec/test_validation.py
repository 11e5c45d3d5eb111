"""Good specs are accepted; every bad one is refused by the field that is wrong."""

import json
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_operator.spec.crds import RESOURCES, SERVICE, crd
from epidote_operator.spec.external_scale import external_scale
from epidote_operator.spec.field_model import API_VERSION
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.object_name import name_problems
from epidote_operator.spec.parsing import parse_cache_policy, parse_load_test, parse_service
from epidote_operator.spec.planner_policy import planner_policy
from epidote_operator.testing.faults import Fault, spoiled
from epidote_operator.testing.generated_services import service
from epidote_operator.testing.service_faults import FAULTS

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "crds/samples").glob("*.yaml"))
PARSERS = {
    "MultimodalService": parse_service,
    "CachePolicy": parse_cache_policy,
    "LoadTest": parse_load_test,
}
SEEDS = st.integers(min_value=0, max_value=2**32)
MINIMAL: dict[str, Any] = {
    "model": {"uri": "builtin://demo"},
    "pool": {"maxWorkers": 8},
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
RUN: dict[str, Any] = {
    "arrivals": {"rate": 1, "duration_s": 1},
    "classes": {"sums": {"kind": "questions", "images": {"count": 0}}},
}


def _schema(kind: str) -> dict[str, Any]:
    """The spec's schema in the dialect of jsonschema: bounds exclude by number, not by flag."""
    resource = next(item for item in RESOURCES if item.kind == kind)
    root = crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def translate(schema: Any) -> Any:
        if isinstance(schema, list):
            return [translate(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        found = {key: translate(value) for key, value in schema.items()}
        for name in ("inimum", "aximum"):
            if found.pop(f"exclusiveM{name}", None) is True:
                found[f"exclusiveM{name}"] = found.pop(f"m{name}")
        return found

    translated: dict[str, Any] = translate(root["properties"]["spec"])
    return translated


IMAGES = (
    "worker",
    "epidote/worker:0.1.0",
    "localhost:5000/a/b/c_d-e.f:latest",
    "Registry.Example.com/team/worker@sha256:" + "0a" * 32,
    "[::1]:5000/worker:v1.2_3",
)
SCHEMA = jsonschema.Draft202012Validator(_schema("MultimodalService"))


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_that_a_node_can_fetch_is_accepted(image: str) -> None:
    assert parse_service({**MINIMAL, "image": image}).image == image
    SCHEMA.validate({**MINIMAL, "image": image})


def _paths(spec: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidSpec) as refused:
        parse_service(spec)
    return [problem.path for problem in refused.value.problems]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_valid(path: Path) -> None:
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sample["apiVersion"] == API_VERSION
    assert not name_problems(sample["metadata"]["name"])
    PARSERS[sample["kind"]](sample["spec"])
    jsonschema.Draft202012Validator(_schema(sample["kind"])).validate(sample["spec"])


@settings(max_examples=500, deadline=None)
@given(SEEDS)
def test_a_valid_service_is_accepted_by_model_schema_and_planner(seed: int) -> None:
    spec = service(Random(seed))
    assert not list(SCHEMA.iter_errors(spec))
    policy = planner_policy(parse_service(spec))
    assert policy.max_workers >= 1


@settings(max_examples=500, deadline=None)
@given(SEEDS, st.sampled_from(FAULTS))
def test_a_spoiled_service_is_refused_by_the_right_field(seed: int, fault: Fault) -> None:
    spec = spoiled(service(Random(seed)), fault)
    assert fault.path in _paths(spec)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_api_server_finds_what_a_schema_can_say(fault: Fault) -> None:
    """Lists of type set and map are compared by the server, which jsonschema can't."""
    spec = spoiled(service(Random(1)), fault)
    by_key = fault.name.startswith(("model.aliases=['a', 'a']", "roles=[{'name': 'Decode'"))
    assert bool(list(SCHEMA.iter_errors(spec))) == (fault.schema and not by_key)


def test_every_problem_is_told_at_once() -> None:
    spec = {**MINIMAL, "slo": {"ttftMilliseconds": -5}, "pool": {"maxWorkers": 0}, "color": "red"}
    with pytest.raises(InvalidSpec) as refused:
        parse_service(spec)
    assert str(refused.value).splitlines() == [
        "spec.pool.maxWorkers: must be at least 1, got 0",
        "spec.slo.ttftMilliseconds: must be at least 1, got -5",
        "spec.slo.tpotMilliseconds: must be given, got nothing",
        "spec.color: must be left out, there is no such field, got 'red'",
    ]


def test_defaults_of_schema_and_model_are_the_same() -> None:
    """What the API server would fill in is what the operator assumes anyway."""

    def defaulted(schema: dict[str, Any], value: Any) -> Any:
        if isinstance(value, dict):
            for name, item in schema.get("properties", {}).items():
                if name not in value and "default" in item:
                    value[name] = json.loads(json.dumps(item["default"]))
                if name in value:
                    value[name] = defaulted(item, value[name])
        return value

    root = crd(SERVICE)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    filled = defaulted(root["properties"]["spec"], json.loads(json.dumps(MINIMAL)))
    assert filled["scaling"]["mode"] == "Auto"
    assert parse_service(filled) == parse_service(MINIMAL)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            {"categories": [{"name": "faq", "ttlSeconds": -5}]},
            "spec.categories[0].ttlSeconds: must be greater than 0, got -5",
        ),
        (
            {"categories": [{"name": "FAQ"}]},
            "spec.categories[0].name: must match ^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$, got 'FAQ'",
        ),
        ({"pressure": {"enter": 0.1, "leave": 0.2}}, "spec.pressure.leave: must be at most"),
        (
            {"categories": [{"name": "a"}, {"name": "a"}]},
            "spec.categories[1].name: must be unique",
        ),
        ({"limits": {"maxEntries": "many"}}, "spec.limits.maxEntries: must be an integer"),
    ],
)
def test_a_bad_cache_policy_is_refused_by_field(spec: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_cache_policy(spec)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"target": {}, "config": RUN}, "spec.target"),
        ({"target": {"serviceName": "a", "url": "http://b"}, "config": RUN}, "spec.target.url"),
        ({"target": {"url": "b:80"}, "config": RUN}, "spec.target.url"),
        ({"target": {"url": "http://b"}, "config": {**RUN, "target": "c"}}, "spec.config.target"),
        (
            {"target": {"url": "http://b"}, "config": {**RUN, "target": {"url": "http://c"}}},
            "spec.config.target.url",
        ),
        (
            {"target": {"url": "http://b"}, "config": {**RUN, "watch": {"x": "y" * 300_000}}},
            "spec.config",
        ),
        ({"target": {"url": "http://b"}}, "spec.config"),
    ],
)
def test_a_bad_load_test_is_refused_by_field(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_load_test(spec)
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize("name", ["", "Upper", "4you", "a.b", "a-", "x" * 41])
def test_names_that_no_service_can_be_made_from_are_refused(name: str) -> None:
    assert [problem.path for problem in name_problems(name)] == ["metadata.name"]


def test_the_external_owners_number_bounds_the_plan() -> None:
    spec = {**MINIMAL, "pool": {"maxWorkers": 8, "workers": 5}, "scaling": {"owner": "External"}}
    policy = planner_policy(parse_service(spec))
    assert (policy.pool.least, policy.pool.most, policy.fixed_pool) == (5, 5, False)


@pytest.mark.parametrize(
    ("asked", "granted", "reason"),
    [(50, 6, "TooManyReplicas"), (1, 4, "TooFewReplicas"), (0, 4, "TooFewReplicas"), (5, 5, None)],
)
def test_an_external_number_out_of_bounds_is_taken_into_them(
    asked: int, granted: int, reason: str | None
) -> None:
    """As an HPA clamps: a number that `/scale` stored must not make the whole spec invalid."""
    spec = parse_service(
        {
            **MINIMAL,
            "pool": {"maxWorkers": 8, "gpuBudget": 6, "workers": asked},
            "roles": [{"name": "Decode", "minWorkers": 2}],
            "scaling": {"owner": "External"},
        }
    )
    policy = planner_policy(spec)
    assert (policy.pool.least, policy.pool.most) == (granted, granted)
    scale = external_scale(spec)
    assert scale is not None
    assert (scale.limit[0] if scale.limit else None) == reason


def test_an_external_owner_that_said_nothing_yet_leaves_the_pool_alone() -> None:
    policy = planner_policy(parse_service({**MINIMAL, "scaling": {"owner": "External"}}))
    assert policy.fixed_pool


@pytest.mark.parametrize(("given", "dwell_s"), [({}, None), ({"dwellSeconds": 0}, 0.0)])
def test_without_a_dwell_of_its_own_a_service_gets_the_one_that_follows_from_the_profile(
    given: dict[str, Any], dwell_s: float | None
) -> None:
    policy = planner_policy(parse_service({**MINIMAL, "scaling": given}))
    assert policy.damping.dwell_s == dwell_s


def test_a_text_model_has_no_encode_lane() -> None:
    spec = {**MINIMAL, "model": {"uri": "builtin://smollm2", "modalities": ["Text"]}}
    lanes = planner_policy(parse_service(spec)).lanes
    assert [str(lane) for lane in lanes] == ["prefill", "decode"]


def test_a_model_read_back_from_its_own_json_is_equal() -> None:
    spec = parse_service(MINIMAL)
    told = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert MultimodalServiceSpec.model_validate_json(json.dumps(told)) == spec


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({"spec": {"tolerations": "x"}}, "spec.tolerations"),
        ({"spec": {"containers": "x"}}, "spec.containers"),
        ({"spec": {"containers": ["x"]}}, "spec.containers[0]"),
        ({"spec": {"containers": [{"image": "i"}]}}, "spec.containers[0].name"),
        (
            {"spec": {"containers": [{"name": "loadgen", "env": [{"value": "1"}]}]}},
            "spec.containers[0].env[0].name",
        ),
        ({"metadata": {"labels": "x"}}, "metadata.labels"),
    ],
)
def test_a_load_tests_template_that_no_pod_can_be_made_with_is_refused(
    template: dict[str, Any], path: str
) -> None:
    spec = {"target": {"url": "http://a"}, "config": RUN, "template": template}
    with pytest.raises(InvalidSpec) as refused:
        parse_load_test(spec)
    assert [problem.path for problem in refused.value.problems] == [f"spec.template.{path}"]


def test_an_unknown_setting_is_told_the_names_that_can_be_set_and_no_secret() -> None:
    spec = {**MINIMAL, "gateway": {"settings": {"adminkey": "hush"}}}
    with pytest.raises(InvalidSpec) as found:
        parse_service(spec)
    (problem,) = found.value.problems
    assert problem.path == "spec.gateway.settings.adminkey"
    assert "max_queue" in problem.wanted
    for word in ("EPIDOTE_GATEWAY_", "admin_key", "api_keys", "hush"):
        assert word not in str(problem)


def test_large_bounds_are_told_in_full() -> None:
    with pytest.raises(InvalidSpec, match="must be at most 16777216, got 99999999"):
        parse_service({**MINIMAL, "model": {**MINIMAL["model"], "maxModelLength": 99_999_999}})
