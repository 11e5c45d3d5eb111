"""This file is about the whole page of one run: verdict first, then what explains it."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

from epidote_loadgen.report import figures_html as figures
from epidote_loadgen.report.distribution_charts import cdf_chart, promise_rows, score_rows
from epidote_loadgen.report.fleet_chart import event_rows, fleet_chart
from epidote_loadgen.report.requests import Bins, end_of, rows
from epidote_loadgen.report.scale import clock
from epidote_loadgen.report.time_charts import (
    attainment_chart,
    errors_chart,
    in_flight_chart,
    latency_chart,
    load_chart,
)


def page(run: dict[str, Any]) -> str:
    """A self-contained HTML page of a run's document. No script or style comes from elsewhere."""
    requests = rows(run)
    bins = Bins.fitting(end_of(run, requests), len(requests))
    classes = run.get("classes") or {}
    objectives = run["verdict"]["objectives"]
    ttft, tpot = _limits(objectives, "ttft_s"), _limits(objectives, "tpot_s")
    groups = [*classes] or [""]
    watch = run.get("watch") or {}
    sections = [
        ("Promises", promise_rows(objectives)),
        (
            "Over time",
            load_chart(requests, bins)
            + latency_chart(
                requests, bins, field="ttft_s", title="Time to first token", limits=ttft
            )
            + fleet_chart(watch, end_s=bins.end_s)
            + (attainment_chart(requests, bins, classes) if classes else "")
            + latency_chart(
                requests, bins, field="tpot_s", title="Time per output token", limits=tpot
            )
            + in_flight_chart(requests, bins)
            + errors_chart(requests, bins),
        ),
        (
            "Distributions",
            '<div class="pair">'
            + cdf_chart(requests, groups, field="ttft_s", title="TTFT within", limits=ttft)
            + cdf_chart(requests, groups, field="tpot_s", title="TPOT within", limits=tpot)
            + cdf_chart(requests, groups, field="e2e_s", title="Whole reply within", limits={})
            + "</div>"
            + figures.latency_table(run),
        ),
        ("Answers", score_rows(run.get("scores") or {})),
        ("The fleet's events", event_rows(watch)),
        ("Recovery after steps of the load", figures.recovery_table(run.get("elasticity") or {})),
        ("Requests without an answer", figures.error_table(run["summary"])),
        ("The load generator itself", figures.client_table(run["client"])),
    ]
    body = "".join(
        f"<section><h2>{escape(title)}</h2>{inside}</section>"
        for title, inside in sections
        if inside
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run['verdict']['outcome'])} · epidote-loadgen</title>"
        f"<style>{_asset('style.css')}</style></head><body><main>{_head(run)}"
        f"{figures.cards(run)}{body}{figures.configuration(run)}</main>"
        f'<div id="tip"></div><script>{_asset("script.js")}</script></body></html>\n'
    )


def _head(run: dict[str, Any]) -> str:
    verdict, about = run["verdict"], run["run"]
    config = run.get("config") or {}
    target = config.get("target") or {}
    told = [
        str(target.get("model") or ""),
        str(target.get("url") or ""),
        str(about["started_at"]).replace("T", " ")[:19] + " UTC",
        clock(float(about["duration_s"])),
        f"seed {about['seed']}",
        f"configuration {about['config_digest']}",
    ]
    flags = ""
    if about["interrupted"]:
        flags += '<p class="flag">Interrupted: only what was measured by then is here.</p>'
    if about["void_reason"]:
        flags += f'<p class="flag">Void: {escape(about["void_reason"])}</p>'
    return (
        f'<header class="{verdict["outcome"].lower()}"><div><b>{escape(verdict["outcome"])}</b>'
        f"<p>{escape(verdict['reason'])}</p></div>{flags}"
        f"<small>{' · '.join(escape(part) for part in told if part)}</small>"
        '<button id="theme" type="button" aria-label="light or dark">◐</button></header>'
    )


def _limits(objectives: Sequence[dict[str, Any]], field: str) -> dict[str, float]:
    """The strictest promised latency of each SLO class that promises one."""
    found: dict[str, float] = {}
    for objective in objectives:
        limit, name = objective.get(field), objective["class"]
        if limit is not None:
            found[name] = min(float(limit), found.get(name, math.inf))
    return found


@lru_cache
def _asset(name: str) -> str:
    text = files("epidote_loadgen.report").joinpath(name).read_text(encoding="utf-8")
    return re.sub(r"\n\s*", "\n", text)
