"""What `epidote serve` makes of its cache flags, and the cache's commands without a service."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from epidote_gateway.cache.policy import InvalidPolicy
from epidote_gateway.cache.store_errors import StoreUnavailable
from epidote_gateway.settings import GatewaySettings
from epidote_workers.cache_settings import weights_revision, with_cache
from epidote_workers.cli import app


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: [{name: faq, ttlSeconds: 60}]")
    return file


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_without_a_policy_there_is_no_cache(weights: Path) -> None:
    settings = GatewaySettings()
    assert with_cache(settings, policy=None, store="", model="m", weights=weights) == settings


def test_flags_go_before_the_environment_and_the_weights_name_the_revision(
    policy: Path, weights: Path
) -> None:
    settings = GatewaySettings(cache_policy="/none.yaml", cache_store="redis://other:1/0")
    found = with_cache(settings, policy=policy, store="sqlite:/x", model="m", weights=weights)
    assert (found.cache_policy, found.cache_store) == (str(policy.resolve()), "sqlite:/x")
    assert found.model_revision == weights_revision(weights)
    (weights / "model.safetensors").write_bytes(b"trained anew")
    assert weights_revision(weights) != found.model_revision


def test_a_bad_policy_or_store_stops_the_start(policy: Path, weights: Path) -> None:
    plain = GatewaySettings()
    with pytest.raises(StoreUnavailable, match="must be sqlite:PATH"):
        with_cache(plain, policy=policy, store="mysql://x", model="m", weights=weights)
    policy.write_text("categories: [{name: faq, ttlSeconds: x}]")
    with pytest.raises(InvalidPolicy, match=r"policy\.categories\[0\]\.ttlSeconds: "):
        with_cache(plain, policy=policy, store="", model="m", weights=weights)


def test_serve_names_the_bad_field_before_it_starts_anything(policy: Path) -> None:
    policy.write_text("limits: {maxEntries: 0}")
    done = CliRunner().invoke(app, ["serve", "--cache-policy", str(policy)])
    assert done.exit_code == 2
    assert "policy.limits.maxEntries: " in done.stderr


def test_a_policy_file_is_checked_without_a_service(policy: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "check", str(policy)])
    assert (done.exit_code, done.stdout.strip()) == (0, f"{policy} is valid; categories: faq")
    policy.write_text("kind: Pod")
    done = CliRunner().invoke(app, ["cache", "check", str(policy)])
    assert done.exit_code == 2
    assert "kind: must be CachePolicy" in done.stderr


def test_invalidate_without_a_selection_is_refused_before_any_call() -> None:
    done = CliRunner().invoke(app, ["cache", "invalidate", "--dry-run"])
    assert done.exit_code == 2
    assert "give at least one option" in done.stderr


def test_every_cache_command_shows_an_example() -> None:
    for command in ("stats", "lookup", "evict", "wrong", "invalidate", "flush", "apply", "check"):
        done = CliRunner().invoke(app, ["cache", command, "--help"])
        assert f"epidote cache {command}" in done.stdout.replace("\n", " ")
