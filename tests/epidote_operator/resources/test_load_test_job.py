"""A LoadTest becomes one Job that runs once, told where to send and what to judge."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from epidote_loadgen.cli import app as loadgen
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.runner.running import STOP_S
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.resources.load_test_job import load_test_command, load_test_objects
from epidote_operator.spec.parsing import parse_load_test
from epidote_operator.testing.manifest_schema import check

RUN: dict[str, Any] = {
    "arrivals": {"rate": 1, "duration_s": 1},
    "classes": {"sums": {"kind": "questions", "images": {"count": 0}}},
}


def objects(*, config: Any = None, **fields: Any) -> list[dict[str, Any]]:
    """`config`: what is said besides the run itself."""
    said = {**RUN, **(config or {})}
    spec = parse_load_test({"target": {"serviceName": "chat"}, "config": said, **fields})
    return load_test_objects(
        "nightly", "prod", "uid-2", spec, url="http://chat:8000", defaults=Defaults(image="i:1")
    )


def test_the_configuration_is_the_users_with_the_target_filled_in() -> None:
    config, _ = objects(config={"seed": 7})
    assert yaml.safe_load(config["data"]["run.yaml"]) == {
        **RUN,
        "seed": 7,
        "target": {"url": "http://chat:8000"},
        "limits": {"run_timeout_s": 7200},
    }


def test_both_are_what_kubernetes_knows() -> None:
    assert all(check(item) for item in objects())


def test_the_samples_configuration_is_one_that_the_load_generator_takes() -> None:
    path = Path(__file__).resolve().parents[3] / "crds/samples/load-test.yaml"
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))
    config, _ = objects(config=sample["spec"]["config"])
    RunFile.model_validate(yaml.safe_load(config["data"]["run.yaml"]))


def test_the_job_runs_a_command_with_flags_that_exist() -> None:
    command = load_test_command()
    assert command[0] == "epidote-loadgen"
    context: Any = typer.main.get_command(loadgen)
    options = {name for item in context.commands[command[1]].params for name in item.opts}
    assert {word for word in command if word.startswith("--")} <= options


def test_what_the_configuration_says_of_the_target_is_kept() -> None:
    config, _ = objects(config={"target": {"model": "m"}})
    assert yaml.safe_load(config["data"]["run.yaml"])["target"] == {
        "model": "m",
        "url": "http://chat:8000",
    }


def test_a_finished_run_is_never_repeated() -> None:
    _, job = objects(timeoutSeconds=600)
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["activeDeadlineSeconds"] > 600


@pytest.mark.parametrize(("given", "found"), [({}, 600), ({"drain_s": 5}, 600), (60, 60)])
def test_the_run_itself_knows_when_its_time_is_over(given: Any, found: int) -> None:
    """The Job's own deadline would throw away what was measured."""
    limits = given if isinstance(given, dict) else {"run_timeout_s": given}
    config, job = objects(timeoutSeconds=600, config={"limits": limits})
    told = yaml.safe_load(config["data"]["run.yaml"])["limits"]
    assert told == {**limits, "run_timeout_s": found}
    assert job["spec"]["activeDeadlineSeconds"] > 600 + STOP_S


def test_limits_that_are_none_are_left_for_another_image_to_refuse() -> None:
    config, _ = objects(config={"limits": "none"}, image="other:1")
    assert yaml.safe_load(config["data"]["run.yaml"])["limits"] == "none"


def test_both_objects_belong_to_the_load_test() -> None:
    for item in objects():
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("LoadTest", "uid-2")
        assert "epidote.dev/service" not in item["metadata"]["labels"]


def test_the_key_is_a_reference() -> None:
    _, job = objects(target={"url": "https://a", "apiKey": {"name": "s", "key": "k"}})
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"secretKeyRef": {"name": "s", "key": "k"}} in [
        item.get("valueFrom") for item in container["env"]
    ]
