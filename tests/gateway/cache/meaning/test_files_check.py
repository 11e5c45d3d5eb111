"""A policy's sentence model is missed where the policy is checked, not where it is needed."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from epidote_gateway.cache.meaning.files_check import check_embedder
from epidote_gateway.cache.policy import InvalidPolicy, parse_policy
from epidote_workers.cache_policy_notice import PolicyNotice
from epidote_workers.cli import app


@pytest.mark.parametrize(
    ("embedder", "field"),
    [({"model": "/no/such"}, "embedder.model"), ({"projection": "/no/p"}, "embedder.projection")],
)
def test_a_missing_file_is_told_by_its_field(embedder: Any, field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicy, match=f"^p.yaml: {field}: "):
        check_embedder(parse_policy({"embedder": embedder}), Path("p.yaml"))
    file = tmp_path / "policy.yaml"
    file.write_text("epoch: a")
    said: list[str] = []
    notice = PolicyNotice(file, said.append)
    file.write_text(f"embedder: {embedder}")
    notice.look()
    [line] = said
    assert line.startswith(f"cache policy refused, the one before stays in force: {file}: {field}")
    ran = CliRunner().invoke(app, ["cache", "check", str(file)])
    assert ran.exit_code != 0
    assert field in ran.output


def test_a_policy_that_names_no_model_is_not_asked_for_one() -> None:
    check_embedder(parse_policy({}), Path("p.yaml"))


def test_a_check_warns_of_a_category_that_is_never_found(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: [{name: private, enabled: false}]")
    ran = CliRunner().invoke(app, ["cache", "check", str(file)])
    assert ran.exit_code == 0
    assert "warning: categories[0].exemplars: private is disabled" in ran.output


def test_a_calibration_that_could_not_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    arguments = ["cache", "calibrate", "none.jsonl", "--out", str(tmp_path / "no" / "c.yaml")]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code != 0
    assert "--out: there is no directory" in ran.output
