"""This file is about `--compile-vision`: what is refused, what it means, who has the last word."""

import pytest
from typer.testing import CliRunner

from epidote_workers.cli import app
from epidote_workers.cli_options import COMPILE_VISION
from epidote_workers.engine_replica import COMPILES_VISION
from epidote_workers.service_settings import ReplicaSettings


@pytest.mark.parametrize("command", [["serve"], ["head"], ["worker", "--head", "127.0.0.1:1"]])
def test_anything_but_auto_on_and_off_is_refused_before_anything_starts(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    result = CliRunner().invoke(app, [*command, "--compile-vision", "yes"])
    assert result.exit_code == 2
    assert "--compile-vision: must be one of auto, on, off, got 'yes'" in result.output


def test_every_choice_has_a_meaning_and_auto_leaves_it_to_the_engine() -> None:
    assert COMPILES_VISION.keys() == set(COMPILE_VISION)
    assert COMPILES_VISION[ReplicaSettings(model="demo").compile_vision] is None
    assert COMPILES_VISION["on"] is True
    assert COMPILES_VISION["off"] is False
