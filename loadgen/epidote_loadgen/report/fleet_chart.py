"""This file is about the fleet over the run's time: workers by role, switches, decisions."""

from collections.abc import Sequence
from html import escape
from typing import Any

from epidote_loadgen.report.frame import TOP, Frame, Series
from epidote_loadgen.report.scale import clock, plain
from epidote_loadgen.report.svg import area, line, path, steps, tag

ROLE_COLOURS = {"encode": "c2", "prefill": "c0", "decode": "c4", "all": "c5"}
EVENT_COLOURS = {"switch": "c1", "scale": "c3", "cold-start": "c6", "decision": "c7"}
MOST_EVENTS = 300


def fleet_chart(watch: dict[str, Any], *, end_s: float) -> str:
    """Workers by role, stacked, with a mark for every event; "" where nothing was watched."""
    samples = _one_source(watch.get("samples") or [])
    if not samples:
        return ""
    roles = [r for r in ROLE_COLOURS if any(sample["workers"].get(r) for sample in samples)]
    at = [float(sample["at_s"]) for sample in samples]
    sizes = {
        role: [float(sum(sample["workers"].get(role, {}).values())) for sample in samples]
        for role in roles
    }
    top = max(sum(sizes[role][i] for role in roles) for i in range(len(samples))) if roles else 1.0
    frame = Frame(
        title="Workers by role",
        note="Marks: role switches, scaling, cold starts and decisions (hover or see below).",
        height=170.0,
        x_high=end_s,
        y_high=1.15 * max(1.0, top),
        x_label=clock,
        y_label=plain,
    )
    below = [0.0] * len(samples)
    for role in roles:
        above = [b + s for b, s in zip(below, sizes[role], strict=True)]
        upper = steps(_points(frame, at, above), frame.x(end_s))
        lower = steps(_points(frame, at, below), frame.x(end_s))
        colour = ROLE_COLOURS[role]
        frame.layers.append(area(upper, lower, class_=f"fill strong {colour}"))
        frame.layers.append(path(upper, class_=f"stroke {colour}"))
        frame.series.append(Series(name=role, colour=colour, at=at, values=sizes[role]))
        below = above
    wanted = [s for s in watch.get("samples") or [] if s.get("desired")]
    if wanted:
        desired = [float(sum(sample["desired"].values())) for sample in wanted]
        moments = [float(sample["at_s"]) for sample in wanted]
        line_of = steps(_points(frame, moments, desired), frame.x(end_s))
        frame.layers.append(path(line_of, class_="promise"))
        frame.series.append(
            Series(name="desired (dashed)", colour="ink", at=moments, values=desired)
        )
        frame.note += " Dashed: what the autoscaler wants in all."
    for event in (watch.get("events") or [])[:MOST_EVENTS]:
        x = frame.x(float(event["at_s"]))
        told = f"{clock(float(event['at_s']))} {event['kind']}: {event['text']}"
        colour = EVENT_COLOURS.get(event["kind"], "c7")
        frame.layers.append(
            tag(
                "g",
                line((x, TOP), (x, TOP + frame.height), class_=f"event {colour}"),
                tag("circle", cx=f"{x:.1f}", cy=TOP + 4, r=4, class_=f"bar {colour}"),
                tag("title", escape(told)),
            )
        )
    kinds = {event["kind"] for event in watch.get("events") or []}
    for kind in sorted(kinds):
        frame.series.append(Series(name=kind, colour=EVENT_COLOURS.get(kind, "c7")))
    return frame.html() + queue_chart(samples, end_s=end_s)


def queue_chart(samples: Sequence[dict[str, Any]], *, end_s: float) -> str:
    """Requests that wait at each role; "" where no source told."""
    roles = [r for r in ROLE_COLOURS if any(r in (s.get("waiting") or {}) for s in samples)]
    at = [float(sample["at_s"]) for sample in samples]
    waiting = {
        role: [float((sample.get("waiting") or {}).get(role, 0.0)) for sample in samples]
        for role in roles
    }
    if not any(any(values) for values in waiting.values()):
        return ""
    frame = Frame(
        title="Requests that wait inside the service, by role",
        height=110.0,
        x_high=end_s,
        y_high=1.1 * max(max(values) for values in waiting.values()),
        x_label=clock,
        y_label=plain,
    )
    for role, values in waiting.items():
        colour = ROLE_COLOURS[role]
        frame.layers.append(path(_points(frame, at, values), class_=f"stroke {colour}"))
        frame.series.append(Series(name=role, colour=colour, at=at, values=values))
    return frame.html()


def event_rows(watch: dict[str, Any]) -> str:
    """What happened to the fleet, in order; decisions with their reasons."""
    events = watch.get("events") or []
    if not events:
        return ""
    body = []
    for event in events[:MOST_EVENTS]:
        why = " · ".join(
            escape(str(event[key]))
            for key in ("reason", "binding", "counterfactual")
            if event.get(key)
        )
        actions = "<br>".join(escape(str(action)) for action in event.get("actions") or [])
        body.append(
            f"<tr><td>{clock(float(event['at_s']))}<td>{escape(event['kind'])}"
            f"<td>{escape(event['text'])}<td>{why}{'<br>' + actions if actions else ''}"
        )
    rest = len(events) - MOST_EVENTS
    note = f'<p class="note">… and {rest} more in the JSON.</p>' if rest > 0 else ""
    head = "<thead><tr><th>time<th>what<th>told<th>why</thead>"
    return f"<table>{head}<tbody>{''.join(body)}</tbody></table>{note}"


def _one_source(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples of the first source that tells of workers: others tell of the same ones."""
    name = next((s.get("source") for s in samples if s["workers"]), None)
    return [s for s in samples if s["workers"] and s.get("source") == name]


def _points(
    frame: Frame, at: Sequence[float], values: Sequence[float]
) -> list[tuple[float, float]]:
    return [(frame.x(x), frame.y(y)) for x, y in zip(at, values, strict=True)]
