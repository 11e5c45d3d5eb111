"""What a run leaves behind says the same in every format, and can be read back."""

import csv
import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest

from epidote_core.modality import Modality
from epidote_loadgen.outputs.document import (
    SCHEMA,
    Document,
    document,
    write_document,
)
from epidote_loadgen.outputs.junit import junit
from epidote_loadgen.outputs.reading import UnreadableRun, read_document
from epidote_loadgen.outputs.request_columns import COLUMNS
from epidote_loadgen.outputs.tables import OFFSETS, write_csv, write_parquet
from epidote_loadgen.records import (
    RequestAttributes,
    RequestRecord,
    RequestStatus,
    RunResult,
    SelfWatch,
)
from epidote_loadgen.report.page import page
from epidote_loadgen.slo import Match, Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import judge

IMAGES = SloClass(
    name="images",
    match=Match(modalities=frozenset({Modality.IMAGE})),
    objectives=(Objective(ttft_s=0.5, ratio=0.9),),
)
TEXT = SloClass(name="text", objectives=(Objective(ttft_s=0.2, tpot_s=0.05, ratio=0.5),))
SLO = SloTable(classes=(IMAGES, TEXT))
QUIET = SelfWatch(
    num_processes=1,
    cpu_s=0.5,
    cpu_utilization=0.2,
    loop_lag_p99_s=0.001,
    loop_lag_max_s=0.002,
    lateness_p50_s=0.0001,
    lateness_p99_s=0.001,
    lateness_max_s=0.002,
    max_in_flight=3,
    num_connections=2,
    num_socket_errors=0,
    prepare_waits=0,
)


def answered(index: int, *, ttft_s: float, gap_s: float = 0.01, tokens: int = 5) -> RequestRecord:
    at_s = 0.1 * index
    offsets = array("f", [ttft_s + gap_s * i for i in range(tokens)])
    return RequestRecord(
        index=index,
        class_name="chat",
        attributes=RequestAttributes(category="sums", max_output_tokens=tokens),
        status=RequestStatus.OK,
        intended_send_s=at_s,
        sent_s=at_s + 0.001,
        end_s=at_s + offsets[-1],
        content_offsets_s=offsets,
        http_status=200,
        prompt_tokens=10,
        output_tokens=tokens,
        correct=index % 2 == 0,
    )


def failed(index: int, status: RequestStatus) -> RequestRecord:
    return RequestRecord(
        index=index,
        class_name="look",
        attributes=RequestAttributes(modality=Modality.IMAGE, num_images=2),
        status=status,
        intended_send_s=0.1 * index,
        error="gone\x00, away",
    )


RECORDS = (
    *(answered(index, ttft_s=0.1) for index in range(30)),
    answered(30, ttft_s=0.4),
    failed(31, RequestStatus.RESET),
    failed(32, RequestStatus.CAPPED),
)


def result(records: Sequence[RequestRecord] = RECORDS, **more: object) -> RunResult:
    base = RunResult(
        config_digest="d1",
        config={"seed": 4},
        seed=4,
        started_at_unix_s=1.7e9,
        duration_s=4.0,
        records=tuple(records),
        self_watch=QUIET,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def made(run: RunResult) -> Document:
    return document(run, SLO, judge(run.records, SLO, void_reason=run.void_reason))


def test_a_document_has_the_verdict_the_figures_and_every_request() -> None:
    run = made(result())
    assert run["schema"] == SCHEMA
    assert run["verdict"]["outcome"] == "FAIL"
    assert run["verdict"]["exit_code"] == 1
    [images, text] = run["verdict"]["objectives"]
    assert (images["class"], images["num_met"], images["num_requests"]) == ("images", 0, 2)
    assert (text["num_met"], text["num_requests"], text["ttft_s"]) == (30, 31, 0.2)
    assert run["summary"]["num_requests"] == 33
    assert run["summary"]["num_good"] == 30
    assert run["summary"]["goodput_rps"] == pytest.approx(7.5)
    assert run["summary"]["by_status"] == {"capped": 1, "ok": 31, "reset": 1}
    assert run["classes"]["text"]["ttft"]["p50_s"] == pytest.approx(0.1, rel=0.01)
    assert run["run"]["asked_rps"] == pytest.approx(10.0)
    assert run["scores"]["overall"] == {"num_scored": 31, "num_correct": 16}
    assert run["scores"]["by_category"]["sums"]["num_correct"] == 16
    assert list(run["requests"]) == list(COLUMNS)
    assert run["requests"]["slo_class"].count("images") == 2
    assert run["requests"]["good"].count(True) == 30


def test_a_document_reads_back_as_it_was(tmp_path: Path) -> None:
    run = made(result())
    write_document(tmp_path / "deep" / "run.json", run)
    assert read_document(tmp_path / "deep" / "run.json") == run


def test_a_run_without_requests_has_a_document_too() -> None:
    run = made(result(records=(), interrupted=True))
    assert run["run"]["interrupted"] is True
    assert run["summary"]["num_requests"] == 0
    assert run["verdict"]["outcome"] == "INCONCLUSIVE"
    assert [found["attainment"] for found in run["verdict"]["objectives"]] == [None, None]
    assert "judged no request" in junit(run).decode()
    assert "of no request" in page(run)
    json.dumps(run, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.json:1: want the JSON of a run, found none"),
        ('{"schema":\n "ep', "x.json:2: .*damaged or cut off at character 12"),
        ("[]", "schema: want .* found None"),
        ('{"schema": "other/9"}', "found 'other/9'"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UnreadableRun, match=message):
        read_document(tmp_path / "x.json")


def test_a_missing_file_is_told_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRun, match=r"gone.json: can't be read: No such file"):
        read_document(tmp_path / "gone.json")


DAMAGE: tuple[tuple[str, Any, str], ...] = (
    ("verdict", None, "verdict: want a mapping, found null"),
    ("verdict.exit_code", "no", 'verdict.exit_code: want a whole number, found "no"'),
    ("run.duration_s", ..., "run.duration_s: want a number, found nothing"),
    ("requests.status", ["ok"], "requests.status: want NUM values, as many as requests, found 1"),
)


@pytest.mark.parametrize(("path", "value", "message"), DAMAGE, ids=[d[0] for d in DAMAGE])
def test_a_damaged_document_is_refused_by_field(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    run = json.loads(json.dumps(made(result())))
    message = message.replace("NUM", str(len(run["requests"]["index"])))
    *sections, name = path.split(".")
    inside = run[sections[0]] if sections else run
    if value is ...:
        del inside[name]
    else:
        inside[name] = value
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(UnreadableRun) as refused:
        read_document(tmp_path / "run.json")
    assert str(refused.value) == f"{tmp_path / 'run.json'}: damaged: {message}"


def test_csv_and_parquet_have_the_documents_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "run.csv", RECORDS, SLO)
    write_parquet(tmp_path / "run.parquet", RECORDS, SLO)
    columns = made(result())["requests"]
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "run.parquet")
    assert list(rows[0]) == list(COLUMNS)
    assert table.column_names == [*COLUMNS, OFFSETS]
    for name in COLUMNS:
        assert table[name].to_pylist() == columns[name]
    assert [row["ttft_s"] for row in rows] == [
        "" if v is None else str(v) for v in columns["ttft_s"]
    ]
    assert {row["good"] for row in rows} == {"true", "false"}
    gaps = table[OFFSETS][30].as_py()
    assert len(gaps) == 5
    assert gaps[0] == pytest.approx(0.4)


def test_junit_has_a_case_an_objective_and_one_for_trust() -> None:
    root = ET.fromstring(junit(made(result())))
    cases = root.findall("testsuite/testcase")
    assert [case.get("classname") for case in cases] == ["slo.images", "slo.text", "run"]
    assert [len(case.findall("failure")) for case in cases] == [1, 0, 0]
    assert root.get("failures") == "1"
    assert "promised 0.9" in str(cases[0][0].get("message"))


def test_junit_of_a_void_run_is_an_error_and_legal_xml() -> None:
    run = made(result(void_reason="the loop lagged\x01 by 9 s"))
    root = ET.fromstring(junit(run))
    [error] = root.findall("testsuite/testcase[@classname='run']/error")
    assert "lagged? by 9 s" in str(error.get("message"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document(path, {"x": math.nan})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
