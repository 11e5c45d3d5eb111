"""The files in the repository are the ones that the models give."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epidote_operator.spec.crd_schema import structural
from epidote_operator.spec.crds import RESOURCES, Resource, crd
from epidote_operator.spec.load_test import LoadTestStatus
from epidote_operator.spec.write_crds import main, rendered

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("crds", "charts/epidote/files/crds")
KEYWORDS = {
    "description", "type", "format", "properties", "required", "items", "additionalProperties",
    "default", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def _schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, item in schema.get("properties", {}).items():
        yield from _schemas(item, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _schemas(schema[key], f"{path}[]")


def _root(resource: Resource) -> dict[str, Any]:
    schema: dict[str, Any] = crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_files_are_what_the_models_say(folder: str) -> None:
    for name, text in rendered().items():
        assert (ROOT / folder / name).read_text(encoding="utf-8") == text, (
            f"{folder}/{name} is stale: run `python -m epidote_operator.spec.write_crds`"
        )


def test_the_command_writes_what_the_test_compares(tmp_path: Path) -> None:
    main([str(tmp_path / "out")])
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == rendered()


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_schema_is_structural(resource: Resource) -> None:
    """One type at every level, no references, and nothing the API server would not know."""
    for path, schema in _schemas(_root(resource)):
        assert schema.keys() <= KEYWORDS, path
        assert "type" in schema or schema.get("x-kubernetes-preserve-unknown-fields"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_field_is_documented(resource: Resource) -> None:
    for path, schema in _schemas(_root(resource)):
        leaf = path.rpartition(".")[2]
        if path and "[]" not in leaf and path != ".metadata":
            assert len(schema.get("description", "")) > 5, path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_keys_of_list_maps_are_required(resource: Resource) -> None:
    for path, schema in _schemas(_root(resource)):
        for key in schema.get("x-kubernetes-list-map-keys", []):
            assert key in schema["items"]["required"], path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_rules_read_only_fields_that_exist(resource: Resource) -> None:
    """A CEL rule with an unknown field makes the API server refuse the whole CRD."""
    for path, schema in _schemas(_root(resource)):
        for rule in schema.get("x-kubernetes-validations", []):
            if not path:
                continue  # metadata, whose fields the server knows
            for steps in re.findall(r"(?:self|oldSelf)((?:\.\w+)+)", rule["rule"]):
                found = schema
                for step in steps.strip(".").split("."):
                    assert step in found["properties"], f"{path}: {rule['rule']}"
                    found = found["properties"][step]
            if field := rule.get("fieldPath"):
                found = schema
                for step in field.strip(".").split("."):
                    assert step in found["properties"], f"{path}: {field}"
                    found = found["properties"][step]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_printed_columns_exist(resource: Resource) -> None:
    schema = _root(resource)
    for column in resource.columns:
        found = schema
        for name, entry in re.findall(r"\.(\w+)(\[[^]]*\])?", column.path):
            if name == "metadata":
                break
            assert name in found["properties"], column.path
            found = found["properties"][name]
            found = found["items"] if entry else found


def test_nested_defaults_reach_a_spec_that_says_nothing() -> None:
    """The server fills `scaling.mode` only where `scaling` itself has a default."""
    spec = _root(RESOURCES[0])["properties"]["spec"]["properties"]
    assert spec["scaling"]["default"] == {}
    assert spec["scaling"]["properties"]["mode"]["default"] == "Auto"


def test_an_optional_field_is_not_nullable() -> None:
    schema = structural(LoadTestStatus)
    assert schema["properties"]["verdict"]["type"] == "string"
    assert "nullable" not in str(schema)
