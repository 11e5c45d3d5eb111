"""What a policy may say, and how it says no."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epidote_gateway.cache.policy import CachePolicy, CategorySpec, InvalidPolicy, parse_policy
from epidote_gateway.cache.policy_file import PolicyFile, policy_of, read_policy


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"categories": [{"name": "a"}, {"name": "a"}]}, "spec.categories[1].name: must be unique"),
        ({"categories": [{"name": "A b"}]}, "spec.categories[0].name: "),
        ({"categories": [{"threshold": 0.9}]}, "spec.categories[0].name: this field is required"),
        ({"categories": [{"name": "a", "ttlSeconds": 0}]}, "spec.categories[0].ttlSeconds: "),
        ({"categories": [{"name": "a", "threshold": 1.5}]}, "spec.categories[0].threshold: "),
        ({"categories": [{"name": "a", "threshold": "x"}]}, "spec.categories[0].threshold: "),
        ({"categories": [{"name": "a", "tll": 5}]}, "spec.categories[0].tll: no such field"),
        (
            {"categories": [{"name": "a", "volatile": True, "loadAdaptation": {"ttlStretch": 1}}]},
            "spec.categories[0].loadAdaptation: must be left out where volatile is true",
        ),
        (
            {"categories": [{"name": "a", "loadAdaptation": {"ttlStretch": 1}}]},
            "spec.categories[0].loadAdaptation.maxTtlSeconds: must be given",
        ),
        ({"pressure": {"enter": 0.2, "leave": 0.5}}, "spec.pressure.leave: must be at most enter"),
        ({"limits": {"maxEntries": 0}}, "spec.limits.maxEntries: "),
        ({"guards": {"numbers": "perhaps"}}, "spec.guards.numbers: "),
        ({"limits": {"maxBytes": float("nan")}}, "spec.limits.maxBytes: "),
    ],
)
def test_a_bad_field_is_named_by_its_path(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(spec)
    assert str(caught.value).startswith(path)


def test_every_bad_field_is_told_at_once() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy({"epoch": 5, "limits": {"maxEntries": -1}})
    assert len(str(caught.value).splitlines()) == 2


def test_unknown_categories_have_the_policy_of_default() -> None:
    policy = parse_policy({"categories": [{"name": "default", "ttlSeconds": 7}]})
    assert policy.category("gone").ttl_seconds == 7
    assert parse_policy({}).category("gone") == CategorySpec(name="default")


def test_what_is_written_reads_back_the_same() -> None:
    policy = parse_policy({"categories": [{"name": "a", "exemplars": ["x"]}], "epoch": "2"})
    assert parse_policy(policy.model_dump(mode="json", by_alias=True)) == policy


def test_every_field_is_documented() -> None:
    schema = CachePolicy.model_json_schema(by_alias=True)
    models = [schema, *schema["$defs"].values()]
    fields = [(name, f) for m in models for name, f in m.get("properties", {}).items()]
    assert len(fields) > 50
    assert not [name for name, field in fields if not field.get("description")]


def test_the_operator_can_import_the_policy_without_the_gateway() -> None:
    code = (
        "import sys; import epidote_gateway.cache.policy;"
        "print([m for m in ('fastapi', 'numpy', 'msgspec', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gateway_without_a_cache_needs_none_of_its_libraries() -> None:
    code = (
        "import sys; import epidote_gateway.app;"
        "print([m for m in ('usearch', 'yaml', 'redis', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_has_the_fields_or_the_whole_resource(tmp_path: Path) -> None:
    bare, whole = tmp_path / "bare.yaml", tmp_path / "whole.json"
    bare.write_text("epoch: '7'\n")
    whole.write_text('{"kind": "CachePolicy", "spec": {"epoch": "7"}}')
    assert read_policy(bare) == read_policy(whole) == parse_policy({"epoch": "7"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "no valid YAML"),
        ("- a", "must be a mapping of fields, got list"),
        ("", "must be a mapping of fields, got NoneType"),
        ("epoch: a\nepoch: b", "no valid YAML: "),
        ("categories: [{name: a, name: b}]", "no valid YAML: "),
        (
            "kind: CachePolicy\napiVersion: apps/v1",
            "apiVersion: must be of serving.epidote.dev, got",
        ),
        ("kind: Pod", "kind: must be CachePolicy, got 'Pod'"),
        ("kind: CachePolicy\nspec: 5", "spec: must be a mapping of fields, got int"),
        ("kind: CachePolicy\nspec: {limits: {maxEntries: x}}", "spec.limits.maxEntries: "),
        ("limits: {maxEntries: x}", "policy.limits.maxEntries: "),
    ],
)
def test_a_bad_file_is_told_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(InvalidPolicy) as caught:
        read_policy(file)
    assert str(caught.value).startswith(f"{file}: {told}")


def test_a_key_given_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicy, match=r"(?s)'epoch' is given twice.*line 2"):
        policy_of(b"epoch: a\nepoch: b")


def test_a_sensitive_category_without_exemplars_is_told(tmp_path: Path) -> None:
    told = parse_policy(
        {
            "categories": [
                {"name": "a", "enabled": False},
                {"name": "b", "volatile": True, "exemplars": ["x"]},
            ]
        }
    ).unfindable()
    assert len(told) == 1
    assert told[0].startswith("categories[0].exemplars: a is disabled and has none")


def test_the_sample_resource_warns_of_nothing() -> None:
    sample = Path(__file__).parents[3] / "crds" / "samples" / "cache-policy.yaml"
    assert read_policy(sample).unfindable() == []


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicy, match="can't be read: No such file"):
        PolicyFile(tmp_path / "none.yaml")


async def test_a_changed_file_is_applied_once_and_a_bad_one_never(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("epoch: '1'")
    watched, applied, refused = PolicyFile(file), [], []

    async def apply(policy: CachePolicy) -> None:
        applied.append(policy.epoch)

    async def look() -> bool:
        return await watched.look(apply, lambda: refused.append(1))

    assert not await look()
    file.write_text("epoch: '2'")
    assert await look()
    assert not await look()
    file.write_text("epoch: [")
    assert not await look()
    file.unlink()
    assert not await look()
    file.write_text("epoch: '3'")
    assert await look()
    assert (applied, len(refused)) == (["2", "3"], 1)


def test_the_example_in_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cache.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    policy = policy_of(example.encode())
    assert [c.name for c in policy.categories] == [
        "faq",
        "prices",
        "forms",
        "personal",
        "default",
    ]
