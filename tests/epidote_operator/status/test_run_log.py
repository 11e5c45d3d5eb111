"""A pod's log is a report and words, mixed: what is kept of it is JSON, or left out and named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_operator.status.run_log import CUT, LEFT_OUT, fitted, read_log

REPORT = {
    "schema": "epidote-loadgen.run/1",
    "number": 12345,
    "verdict": {"outcome": "PASS"},
    "summary": {"num_requests": 3},
    "requests": {"index": [0, 1, 2], "status": ["ok", "ok", "ok"]},
}
LINE = json.dumps(REPORT, separators=(",", ":"))


def test_words_on_stderr_do_not_spoil_the_report() -> None:
    log = read_log(f"warning: few requests\n{LINE}\nstopping\n")
    assert log.report == REPORT
    assert log.words == ("warning: few requests", "stopping")


def test_without_a_report_the_last_error_is_the_reason() -> None:
    log = read_log("warning: w\nerror: first\nerror: run.yaml: rate: want a number\n  found 'x'\n")
    assert log.report is None
    assert log.reason == "run.yaml: rate: want a number\n  found 'x'"
    assert read_log("Traceback\nValueError: no\n").reason == "Traceback\nValueError: no"
    assert read_log("").reason == ""


@given(st.integers(min_value=len('{"schema":"epidote-loadgen.run/'), max_value=len(LINE)))
def test_of_a_report_that_breaks_off_whole_fields_are_kept(length: int) -> None:
    report = dict(read_log(LINE[:length]).report or {})
    cut = report.pop(LEFT_OUT, {})
    assert report.items() <= REPORT.items()
    assert (CUT in cut.values()) == (length < len(LINE))


def test_a_report_that_is_too_long_loses_its_largest_field_first_and_says_so() -> None:
    text = fitted(REPORT, len(LINE) - 1)
    found = json.loads(text)
    assert len(text) < len(LINE)
    assert found["verdict"] == REPORT["verdict"]
    assert "requests" not in found
    assert found[LEFT_OUT]["requests"] > 0
    assert json.loads(fitted(REPORT, len(LINE))) == REPORT


@pytest.mark.parametrize("others", ["words", 7, ["x"], None])
def test_another_images_field_of_that_name_may_be_anything(others: Any) -> None:
    report = {**REPORT, LEFT_OUT: others}
    assert json.loads(fitted(report, 10_000)) == report
    found = json.loads(fitted(report, len(LINE) - 1))
    assert found["verdict"] == REPORT["verdict"]
    assert found[LEFT_OUT].keys() == {LEFT_OUT, "requests"}


@given(
    st.dictionaries(st.text(max_size=8) | st.just(LEFT_OUT), st.text(max_size=40), max_size=6),
    st.integers(min_value=200, max_value=500),
)
def test_what_is_kept_is_json_and_fits(report: dict[str, Any], max_bytes: int) -> None:
    text = fitted(report, max_bytes)
    assert len(text.encode()) <= max_bytes or set(json.loads(text)) == {LEFT_OUT}
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("url", ["http://bob:secret@host/v1", "https://:secret@host/v1"])
def test_no_password_is_kept(url: str) -> None:
    line = json.dumps({**REPORT, "config": {"target": {"url": url}}}, separators=(",", ":"))
    log = read_log(f"error: {url} refused\n{line}")
    assert "secret" not in json.dumps(log.report) + "".join(log.words)
