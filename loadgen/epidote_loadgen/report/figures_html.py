"""This file is about the figures of a run as cards and tables."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from epidote_loadgen.report.scale import percent, plain, seconds

QUANTILES = ("p50", "p90", "p99")
LATENCIES = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("E2E", "e2e"))


def cards(run: dict[str, Any]) -> str:
    """The few figures that matter most."""
    summary, elastic = run["summary"], run.get("elasticity") or {}
    found = [
        ("goodput", f"{plain(summary['goodput_rps'])}/s", "requests that kept every promise"),
        (
            "attainment",
            percent(summary["attainment"]) if summary["num_judged"] else "–",
            f"{summary['num_good']:,} of {summary['num_judged']:,} judged requests",
        ),
        (
            "answered",
            percent(summary["num_ok"] / max(1, summary["num_requests"])),
            f"{summary['num_ok']:,} of {summary['num_requests']:,} requests",
        ),
    ]
    if summary["ttft"]["count"]:
        found.append(
            ("TTFT p50 / p99", _two(summary["ttft"]), "from the intended send"),
        )
    if summary["tpot"]["count"]:
        found.append(("TPOT p50 / p99", _two(summary["tpot"]), "time per output token"))
    found.append(
        ("output", f"{plain(summary['output_tokens_per_s'])}/s", "tokens, by the server's count")
    )
    if summary["num_scored"]:
        right = summary["num_correct"] / summary["num_scored"]
        told = f"{summary['num_correct']:,} of {summary['num_scored']:,} scored answers"
        found.append(("right answers", percent(right), told))
    if elastic.get("gpu_seconds_per_good_request") is not None:
        bound = elastic.get("times_lower_bound")
        told = f"{plain(elastic['gpu_seconds'])} GPU·s held"
        told += f", {plain(bound)} x the lower bound" if bound else ""
        found.append(
            (
                "GPU time",
                f"{plain(elastic['gpu_seconds_per_good_request'])} s",
                f"a good request; {told}",
            )
        )
    recoveries = elastic.get("recoveries") or []
    if recoveries:
        worst = [r["after_s"] for r in recoveries]
        never = any(after is None for after in worst)
        value = "not seen" if never else seconds(max(worst)) if max(worst) else "at once"
        told = "still missing at the next step or the end" if never else "the longest"
        found.append(("recovery after a step", value, told))
    items = "".join(
        f"<li><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(told)}</small></li>"
        for name, value, told in found
    )
    return f'<ul class="cards">{items}</ul>'


def _two(latency: dict[str, float]) -> str:
    return f"{seconds(latency['p50_s'])} / {seconds(latency['p99_s'])}"


def latency_table(run: dict[str, Any]) -> str:
    """Quantiles of all requests and of each SLO class."""
    head = "".join(f'<th colspan="{len(QUANTILES)}">{name}' for name, _ in LATENCIES)
    names = "".join(f"<th>{q}" for _ in LATENCIES for q in QUANTILES)
    groups = {"all": run["summary"], **(run.get("classes") or {})}
    body = ""
    for name, figures in groups.items():
        cells = "".join(
            f"<td>{seconds(figures[key][f'{q}_s']) if figures[key]['count'] else '–'}"
            for _, key in LATENCIES
            for q in QUANTILES
        )
        body += f"<tr><td>{escape(name)}<td>{figures['num_requests']:,}{cells}"
    return (
        f'<div class="wide"><table class="numbers"><thead><tr><th rowspan="2">class'
        f'<th rowspan="2">requests{head}<tr>{names}</thead><tbody>{body}</tbody></table></div>'
    )


def error_table(summary: dict[str, Any]) -> str:
    """Kinds and messages of requests without a good end; "" without any."""
    kinds = {kind: n for kind, n in summary["by_status"].items() if kind != "ok"}
    if not kinds:
        return ""
    rows: Sequence[tuple[str, int]] = [*kinds.items(), *summary["by_error"].items()]
    body = "".join(f"<tr><td>{escape(what)}<td>{count:,}" for what, count in rows)
    return f"<table><thead><tr><th>kind or message<th>requests</thead><tbody>{body}</tbody></table>"


def client_table(client: dict[str, Any]) -> str:
    """How the client itself fared: what makes the rest believable."""
    rows = [
        ("processes", f"{client['num_processes']}"),
        ("CPU of the busiest, of one core", percent(client["cpu_utilization"])),
        # Runs of older versions did not count these two.
        ("ready to run, and waited for a processor", percent(client.get("cpu_wait_ratio", 0.0))),
        ("sends late by, p50 / p99 / most", _three(client, "lateness", ("p50", "p99", "max"))),
        ("event loop late by, p99 / most", _three(client, "loop_lag", ("p99", "max"))),
        ("in flight at most", f"{client['max_in_flight']:,}"),
        ("connections opened", f"{client['num_connections']:,}"),
        ("requests sent again on a fresh connection", f"{client.get('num_retries', 0):,}"),
        ("own socket errors", f"{client['num_socket_errors']:,}"),
        ("sends that waited for their payload", f"{client['prepare_waits']:,}"),
    ]
    body = "".join(f"<tr><td>{escape(name)}<td>{escape(value)}" for name, value in rows)
    return f"<table><tbody>{body}</tbody></table>"


def _three(client: dict[str, Any], name: str, kinds: Sequence[str]) -> str:
    return " / ".join(seconds(client[f"{name}_{kind}_s"]) for kind in kinds)


def recovery_table(elastic: dict[str, Any]) -> str:
    """After each step up of the load, how long promises were missed."""
    found = elastic.get("recoveries") or []
    if not found:
        return ""
    body = "".join(
        f"<tr><td>{seconds(r['at_s'])}<td>{plain(r['from_rps'])} → {plain(r['to_rps'])}/s"
        f"<td>{escape(r['slo_class'])}"
        f"<td>{'not within the run' if r['after_s'] is None else seconds(r['after_s'])}"
        for r in found
    )
    head = "<thead><tr><th>step at<th>load<th>class<th>promises kept again after</thead>"
    return f"<table>{head}<tbody>{body}</tbody></table>"


def configuration(run: dict[str, Any]) -> str:
    text = json.dumps(run.get("config") or {}, indent=2, ensure_ascii=False)
    return f"<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>"
