"""The page of a run is self-contained, well formed, and shows what the document says."""

import itertools
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.outputs.request_columns import COLUMNS
from epidote_loadgen.report.page import page
from epidote_loadgen.report.requests import Bins, rows
from epidote_loadgen.report.scale import Scale, log_ticks, ticks
from epidote_loadgen.report.svg import dots

VOID = {"meta", "br", "i"}
OPTIONAL = {"tr", "td", "th", "li", "thead", "tbody", "p"}
LATENCY = {f"{q}_s": 0.2 for q in ("p50", "p90", "p95", "p99", "p999")} | {"count": 9}
SUMMARY: dict[str, Any] = {
    "num_requests": 9,
    "num_ok": 8,
    "num_judged": 9,
    "num_good": 6,
    "attainment": 0.66,
    "goodput_rps": 0.6,
    "output_tokens_per_s": 3.0,
    "by_status": {"ok": 8, "reset": 1},
    "by_error": {"<b>gone</b>": 1},
    "num_scored": 8,
    "num_correct": 7,
    **{name: LATENCY for name in ("ttft", "tpot", "itl", "e2e", "lateness")},
}
OBJECTIVE = {
    "class": "chat",
    "objective": "TTFT <= 500 ms",
    "ttft_s": 0.5,
    "tpot_s": None,
    "ratio": 0.9,
    "num_requests": 9,
    "num_met": 6,
    "attainment": 0.66,
    "low": 0.4,
    "high": 0.95,
    "outcome": "INCONCLUSIVE",
    "more_requests": 1234,
}
WATCH = {
    "samples": [
        {
            "at_s": 0.5,
            "source": "a",
            "workers": {"encode": {"routable": 1}, "decode": {"routable": 2}},
            "waiting": {"decode": 3.0},
        },
        {"at_s": 5.0, "source": "b", "workers": {"decode": {"routable": 9}}},
        {
            "at_s": 6.0,
            "source": "a",
            "workers": {"decode": {"routable": 3}},
            "waiting": {},
            "desired": {"decode": 4},
        },
    ],
    "events": [
        {"at_s": 2.0, "kind": "switch", "text": "encode → decode"},
        {
            "at_s": 3.0,
            "kind": "decision",
            "text": "images <wait>",
            "reason": "SloBreach",
            "counterfactual": "one more GPU",
            "actions": ["switch w1"],
        },
    ],
}


def request(index: int, **more: Any) -> dict[str, Any]:
    base = dict.fromkeys(COLUMNS) | {
        "index": index,
        "class": "c",
        "slo_class": "chat",
        "status": "ok",
        "good": True,
        "intended_send_s": float(index),
        "sent_s": float(index),
        "end_s": index + 0.5,
        "ttft_s": 0.2,
        "tpot_s": 0.02,
        "e2e_s": 0.5,
    }
    return base | more


REQUESTS = [
    *(request(i) for i in range(6)),
    request(6, good=False, ttft_s=0.9),
    request(7, good=False, ttft_s=0.8),
    request(8, good=False, status="reset", ttft_s=None, tpot_s=None, e2e_s=None),
]


def document(requests: Sequence[dict[str, Any]] = REQUESTS, **more: Any) -> dict[str, Any]:
    return {
        "run": {
            "started_at": "2026-11-21T08:00:00.000+00:00",
            "duration_s": 10.0,
            "seed": 1,
            "config_digest": "abc",
            "interrupted": False,
            "void_reason": "",
        },
        "verdict": {"outcome": "INCONCLUSIVE", "reason": "x < y", "objectives": [OBJECTIVE]},
        "summary": SUMMARY,
        "classes": {"chat": SUMMARY},
        "scores": {
            "overall": {"num_scored": 8, "num_correct": 7},
            "by_category": {"where is it": {"num_scored": 8, "num_correct": 7}},
            "by_cache": {"hit": {"num_scored": 2, "num_correct": 1}},
            "traps": {"num_scored": 2, "num_correct": 1},
            "paraphrases": {"num_scored": 0, "num_correct": 0},
        },
        "client": {
            "num_processes": 1,
            "cpu_utilization": 0.1,
            "max_in_flight": 3,
            "num_connections": 2,
            "num_socket_errors": 0,
            "prepare_waits": 0,
            **{
                f"{name}_{kind}_s": 0.001
                for name in ("lateness", "loop_lag")
                for kind in ("p50", "p99", "max")
            },
        },
        "watch": WATCH,
        "elasticity": {
            "gpu_seconds": 30.0,
            "gpu_seconds_per_good_request": 5.0,
            "times_lower_bound": 3.2,
            "recoveries": [
                {"at_s": 3, "from_rps": 1, "to_rps": 5, "slo_class": "chat", "after_s": 4.0}
            ],
        },
        "config": {"target": {"model": "<script>alert(1)</script>", "url": "http://x"}},
        "requests": {name: [row[name] for row in requests] for name in COLUMNS},
    } | more


class Balanced(HTMLParser):
    """Remembers what is open; fails where a tag is closed that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in OPTIONAL:
            self.open.pop()
        if tag in VOID:
            return
        assert self.open.pop() == tag


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.S))


def test_the_page_shows_verdict_promises_fleet_answers_and_client() -> None:
    text = text_of(page(document()))
    for part in (
        "INCONCLUSIVE",
        "x &lt; y",
        "desired (dashed)",
        "TTFT &lt;= 500 ms",
        "about 1,234 more would settle it",
        "66 % (40 % to 95 %)",
        "Time to first token",
        "Workers by role",
        "decision",
        "SloBreach",
        "one more GPU",
        "switch w1",
        "where is it",
        "(traps)",
        "(cache: hit)",
        "87.5 %",
        "5 s",
        "3.2 x the lower bound",
        "reset",
        "event loop late",
    ):
        assert part in text, part


def test_nothing_in_a_document_can_become_markup() -> None:
    html = page(document())
    assert "<script>alert" not in html
    assert "<b>gone</b>" not in html
    assert html.count("<script>") == 1


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed() -> None:
    html = page(document())
    assert not re.search(r"(src|href|@import|url\()", html)
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert parser.seen.count("svg") >= 9
    for drawn in re.findall(r"<svg.*?</svg>", html, re.S):
        ET.fromstring(drawn)
        assert "nan" not in drawn
        assert "inf" not in drawn.replace("info", "")


@pytest.mark.parametrize(
    "more",
    [
        {"requests": []},
        {"watch": {}, "elasticity": {}, "scores": {}},
        {"classes": {}, "verdict": {"outcome": "PASS", "reason": "", "objectives": []}},
    ],
    ids=["no requests", "nothing watched", "nothing promised"],
)
def test_a_run_that_lacks_parts_has_a_page_too(more: dict[str, Any]) -> None:
    html = page(document(**more))
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []


def test_an_interrupted_or_void_run_says_so() -> None:
    about = document()["run"] | {"interrupted": True, "void_reason": "the loop lagged"}
    text = text_of(page(document(run=about)))
    assert "Interrupted" in text
    assert "Void: the loop lagged" in text


def test_hover_values_are_json() -> None:
    html = page(document())
    found = [json.loads(json_text) for json_text in _series(html)]
    names = {series["name"] for chart in found for series in chart}
    assert {"asked", "good", "p50", "p99", "in flight", "decode", "chat"} <= names
    assert all(len(s["at"]) == len(s["values"]) for chart in found for s in chart)


def _series(html: str) -> list[str]:
    class Finder(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for name, value in attrs if name == "data-series"]

    finder = Finder()
    finder.found = []
    finder.feed(html)
    return finder.found


def test_a_hundred_thousand_dots_are_bounded_by_the_pixels() -> None:
    drawn = dots((x % 900 + 0.1, x % 200 + 0.1) for x in range(100_000))
    assert len(drawn) < 40_000


@given(st.integers(1, 5000), st.floats(1.0, 1e5))
def test_bins_cover_the_run_and_count_every_request_once(number: int, end_s: float) -> None:
    bins = Bins.fitting(end_s, number)
    assert bins.count * bins.width_s >= end_s * (1 - 1e-9)
    assert bins.count <= 121
    requests = [{"at": end_s * i / number} for i in range(number)]
    rates = bins.rates(requests, lambda row: row["at"])
    assert sum(rates) * bins.width_s == pytest.approx(number)


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6), st.booleans(), st.lists(st.floats(1e-9, 1e12)))
def test_scales_are_monotone_and_stay_inside(
    low: float, factor: float, is_log: bool, values: list[float]
) -> None:
    scale = Scale(low=low, high=low * factor, start=50.0, end=900.0, is_log=is_log)
    pixels = [scale(value) for value in sorted(values)]
    assert all(49.999 <= pixel <= 900.001 for pixel in pixels)
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(pixels))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


@given(st.floats(1e-4, 1e3), st.floats(1.05, 1e6))
def test_an_axis_has_a_tick_whatever_its_range(low: float, factor: float) -> None:
    scale = Scale(low=low, high=low * factor, start=0.0, end=1.0, is_log=True)
    found = scale.ticks()
    assert 1 <= len(found) <= 13
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in found)


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e6))
def test_log_ticks_lie_inside(low: float, factor: float) -> None:
    assert all(low <= tick <= low * factor for tick in log_ticks(low, low * factor))


def test_rows_are_the_columns_turned() -> None:
    assert rows(document()) == REQUESTS
