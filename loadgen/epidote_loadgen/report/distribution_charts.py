"""This file is about distributions: latencies as cumulative curves, attainment with intervals."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from epidote_loadgen.report.frame import HALF_WIDTH, TOP, Frame, Series
from epidote_loadgen.report.requests import Row
from epidote_loadgen.report.scale import percent, seconds
from epidote_loadgen.report.svg import label, line, path

FLOOR_S = 0.0005
MOST_POINTS = 200


def cdf_chart(
    requests: Sequence[Row],
    groups: Sequence[str],
    *,
    field: str,
    title: str,
    limits: Mapping[str, float],
) -> str:
    """Share of requests within a latency, by SLO class; those without an answer never are."""
    curves = {}
    for name in groups:
        members = [row for row in requests if row["slo_class"] == name]
        values = sorted(max(FLOOR_S, row[field]) for row in members if row[field] is not None)
        if values:
            curves[name] = (values, len(members))
    if not curves:
        return ""
    everything = [v for values, _ in curves.values() for v in (values[0], values[-1])]
    everything += limits.values()
    frame = Frame(
        title=title,
        width=HALF_WIDTH,
        height=200.0,
        x_low=min(everything) / 1.2,
        x_high=max(everything) * 1.2,
        x_is_log=True,
        y_high=1.02,
        x_label=seconds,
        y_label=percent,
    )
    for limit in sorted(set(limits.values())):
        x = frame.x(limit)
        frame.layers.append(line((x, TOP), (x, TOP + frame.height), class_="promise"))
        frame.layers.append(label(x + 4, TOP + frame.height - 6, seconds(limit), class_="promise"))
    for number, (name, (values, total)) in enumerate(curves.items()):
        stride = max(1, len(values) // MOST_POINTS)
        kept = sorted({*range(0, len(values), stride), len(values) - 1})
        at = [values[i] for i in kept]
        shares = [(i + 1) / total for i in kept]
        points = [(frame.x(x), frame.y(y)) for x, y in zip(at, shares, strict=True)]
        colour = f"c{number % 8}"
        frame.layers.append(path(points, class_=f"stroke {colour}"))
        frame.series.append(
            Series(name=name or "all", colour=colour, at=at, values=shares, unit="share")
        )
    return frame.html()


def promise_rows(objectives: Sequence[dict[str, Any]]) -> str:
    """Each promise with its share, the confidence interval, and the ratio asked for, drawn."""
    if not objectives:
        return '<p class="note">Nothing was promised: the run file has no SLO.</p>'
    body = "".join(_promise_row(found) for found in objectives)
    return (
        '<table class="promises"><thead><tr><th>class<th>promise<th>for'
        '<th class="plot">kept, with its confidence interval<th>requests<th>verdict</thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _promise_row(found: dict[str, Any]) -> str:
    state = {"PASS": "good", "FAIL": "bad"}.get(found["outcome"], "open")
    # The scale shows what matters: from the ratio as far down as the interval reaches.
    low = min(found["low"], found["ratio"])
    low = max(0.0, low - max(0.02, 0.35 * (1.0 - low)))

    def x(value: float) -> str:
        return f"{100 * (value - low) / (1.0 - low):.2f}%"

    width = f"{100 * (found['high'] - found['low']) / (1.0 - low):.2f}%"
    point, told = "", "of no request"
    if found["num_requests"]:
        point = f'<i class="point" style="left:{x(found["attainment"])}"></i>'
        told = (
            f"{percent(found['attainment'])} ({percent(found['low'])} to {percent(found['high'])})"
        )
    more = ""
    if found["outcome"] == "INCONCLUSIVE" and found["more_requests"]:
        more = f"<br><small>about {found['more_requests']:,} more would settle it</small>"
    return (
        f"<tr><td>{escape(found['class'])}<td>{escape(found['objective'])}"
        f"<td>{percent(found['ratio'])}"
        f'<td class="plot {state}"><div class="range">'
        f'<i class="interval" style="left:{x(found["low"])};width:{width}"></i>'
        f"{point}"
        f'<i class="asked" style="left:{x(found["ratio"])}"></i></div>'
        f"<small>{told}</small>"
        f"<td>{found['num_met']:,} of {found['num_requests']:,}"
        f'<td class="{state}"><b>{found["outcome"].lower()}</b>{more}'
    )


def score_rows(scores: dict[str, Any]) -> str:
    """Right answers by category as bars; "" where nothing was scored."""
    if not scores.get("overall", {}).get("num_scored"):
        return ""
    named = dict(scores["by_category"])
    for kind in ("paraphrases", "traps"):
        if scores[kind]["num_scored"]:
            named[f"({kind})"] = scores[kind]
    for state, score in scores["by_cache"].items():
        if state:
            named[f"(cache: {state})"] = score
    body = "".join(_score_row(name or "–", score) for name, score in named.items())
    return f'<table class="scores"><tbody>{body}</tbody></table>'


def _score_row(name: str, score: dict[str, int]) -> str:
    share = score["num_correct"] / max(1, score["num_scored"])
    return (
        f'<tr><td>{escape(name)}<td class="plot"><div class="meter">'
        f'<i style="width:{100 * share:.1f}%"></i></div>'
        f"<td>{percent(share)}<td>{score['num_correct']:,} of {score['num_scored']:,}"
    )
