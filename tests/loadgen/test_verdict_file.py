"""The verdict alone: complete, and small enough for a termination message."""

import json
from pathlib import Path

from epidote_loadgen.slo import Objective
from epidote_loadgen.verdict.interval import Interval
from epidote_loadgen.verdict.verdict import ExitCode, ObjectiveVerdict, Outcome, Verdict
from epidote_loadgen.verdict_file import MAX_BYTES, verdict_json, write_verdict


def found(number: int, outcome: Outcome) -> ObjectiveVerdict:
    return ObjectiveVerdict(
        class_name=f"class-{number}",
        objective=Objective(ttft_s=1.0, itl_s=0.05),
        num_requests=1000,
        num_met=990,
        interval=Interval(0.98, 0.995),
        design_effect=1.0,
        outcome=outcome,
    )


def verdict(*objectives: ObjectiveVerdict) -> Verdict:
    return Verdict(
        outcome=Outcome.FAIL, exit_code=ExitCode.MISSED, objectives=objectives, reason="x" * 5000
    )


def test_it_says_what_a_gate_needs() -> None:
    value = json.loads(verdict_json(verdict(found(0, Outcome.FAIL)), num_requests=1000))
    assert (value["outcome"], value["exit_code"]) == ("FAIL", 1)
    assert value["objectives"][0]["attainment"] == 0.99
    assert value["schema"] == "epidote-loadgen.verdict/1"


def test_many_objectives_are_cut_short_but_never_the_failed_ones() -> None:
    many = [found(i, Outcome.PASS) for i in range(100)] + [found(100, Outcome.FAIL)]
    text = verdict_json(verdict(*many), num_requests=5)
    assert len(text.encode()) <= MAX_BYTES
    value = json.loads(text)
    assert value["num_objectives"] == 101
    assert value["objectives"][0]["class"] == "class-100"


def test_a_file_that_is_a_mount_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 10_000)
    before = path.stat().st_ino
    write_verdict(path, verdict(found(0, Outcome.PASS)), num_requests=1)
    assert path.stat().st_ino == before
    assert json.loads(path.read_text())["num_requests"] == 1
