"""The commands `report` and `compare` work from what a run wrote, and exit as a gate expects."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from epidote_loadgen.cli import app
from epidote_loadgen.outputs.document import document, write_document
from epidote_loadgen.records import (
    RequestAttributes,
    RequestRecord,
    RequestStatus,
    RunResult,
    SelfWatch,
)
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import judge

SLO = SloTable(classes=(SloClass(name="all", objectives=(Objective(e2e_s=1.0, ratio=0.9),)),))
WATCH = SelfWatch(
    **dict.fromkeys(("cpu_s", "cpu_utilization", "loop_lag_p99_s", "loop_lag_max_s"), 0.0),
    **dict.fromkeys(("lateness_p50_s", "lateness_p99_s", "lateness_max_s"), 0.0),
    **dict.fromkeys(("num_processes", "max_in_flight", "num_connections"), 1),
    **dict.fromkeys(("num_socket_errors", "prepare_waits"), 0),
)


def saved(path: Path, *, e2e_s: float) -> Path:
    records = tuple(
        RequestRecord(
            index=index,
            class_name="c",
            attributes=RequestAttributes(),
            status=RequestStatus.OK,
            intended_send_s=0.1 * index,
            sent_s=0.1 * index,
            end_s=0.1 * index + e2e_s * (1.0 + 0.01 * (index % 7)),
        )
        for index in range(200)
    )
    result = RunResult(
        config_digest="d",
        config={},
        seed=1,
        started_at_unix_s=0.0,
        duration_s=20.0,
        records=records,
        self_watch=WATCH,
    )
    write_document(path, document(result, SLO, judge(records, SLO)))
    return path


def test_damage_deep_inside_a_run_is_told_by_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "run.json", e2e_s=0.5)
    run = json.loads(path.read_text())
    run["verdict"]["objectives"][0].pop("interval", None)
    run["verdict"]["objectives"][0].pop("low")
    path.write_text(json.dumps(run))
    done = invoke("report", path)
    assert done.exit_code == 2
    assert f"error: {path}: damaged: " in done.stderr
    assert "KeyError: 'low'" in done.stderr
    assert not path.with_suffix(".html").exists()


def test_an_exit_code_that_is_none_of_ours_is_not_passed_on(tmp_path: Path) -> None:
    path = saved(tmp_path / "run.json", e2e_s=0.5)
    run = json.loads(path.read_text())
    run["verdict"]["exit_code"] = 77
    path.write_text(json.dumps(run))
    done = invoke("report", path)
    assert done.exit_code == 2
    assert "damaged: verdict.exit_code: want 0 to 4, found 77" in done.stderr


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_report_is_made_from_the_json_and_exits_as_the_run_did(tmp_path: Path) -> None:
    done = invoke("report", saved(tmp_path / "run.json", e2e_s=0.5), "--junit", tmp_path / "j.xml")
    assert done.exit_code == 0, done.output
    assert "PASS" in done.output
    assert "<svg" in (tmp_path / "run.html").read_text()
    assert "<testsuites" in (tmp_path / "j.xml").read_text()
    missed = invoke(
        "report", saved(tmp_path / "slow.json", e2e_s=1.5), "--html", tmp_path / "x.html"
    )
    assert missed.exit_code == 1, missed.output
    assert (tmp_path / "x.html").exists()


def test_a_comparison_exits_1_only_where_something_got_worse(tmp_path: Path) -> None:
    fast = saved(tmp_path / "fast.json", e2e_s=0.5)
    slow = saved(tmp_path / "slow.json", e2e_s=1.5)
    worse = invoke("compare", fast, slow)
    assert worse.exit_code == 1, worse.output
    assert "worse" in worse.output
    assert invoke("compare", slow, fast).exit_code == 0
    same = invoke("compare", fast, fast, "--json")
    assert same.exit_code == 0
    assert json.loads(same.stdout)["is_worse"] is False


@pytest.mark.parametrize("command", [["report"], ["compare", "gone.json"]])
def test_what_is_no_run_is_a_usage_error(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = invoke(*command, tmp_path / "x.json")
    assert done.exit_code == 2
    assert "error:" in done.output


def test_a_page_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = saved(tmp_path / "run.json", e2e_s=0.5)
    done = invoke("report", run, "--html", tmp_path / "file" / "x.html")
    assert done.exit_code == 2
    assert "can't be written" in done.output
