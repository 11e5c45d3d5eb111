"""This file is about plots over the run's time: load, latency, queue, attainment, errors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from epidote_loadgen.measures.nearest_rank import nearest_rank
from epidote_loadgen.records import RequestStatus
from epidote_loadgen.report.frame import LEFT, Frame, Series
from epidote_loadgen.report.requests import Bins, Row
from epidote_loadgen.report.scale import clock, percent, plain, seconds
from epidote_loadgen.report.svg import area, dots, label, line, path, tag

OK = RequestStatus.OK.value
FLOOR_S = 0.001  # of logarithmic latency axes


def load_chart(requests: Sequence[Row], bins: Bins) -> str:
    """Requests a second: asked by the plan, ended well, and good."""
    asked = bins.rates(requests, lambda row: row["intended_send_s"])
    done = bins.rates(requests, lambda row: row["end_s"] if row["status"] == OK else None)
    good = bins.rates(requests, lambda row: row["end_s"] if row["good"] else None)
    frame = Frame(
        title="Load and goodput",
        note="Requests per second: as the plan asked for, answered, and answered within the SLO.",
        height=180.0,
        x_high=bins.end_s,
        y_high=1.1 * max([1e-9, *asked, *done]),
        x_label=clock,
    )
    at = [bins.middle_s(i) for i in range(bins.count)]
    for name, colour, values in (
        ("asked", "c7", asked),
        ("answered", "c0", done),
        ("good", "good", good),
    ):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(at, values, strict=True)]
        if name == "asked":
            base = [(x, frame.y(0.0)) for x, _ in points]
            frame.layers.append(area(points, base, class_=f"fill {colour}"))
        frame.layers.append(path(points, class_=f"stroke {colour}"))
        frame.series.append(Series(name=name, colour=colour, at=at, values=values, unit="/s"))
    return frame.html()


def latency_chart(
    requests: Sequence[Row],
    bins: Bins,
    *,
    field: str,
    title: str,
    limits: Mapping[str, float],
) -> str:
    """Every request as a dot at its intended send; medians and p99 as lines; promises dashed.

    `limits` are by SLO class.
    """
    known = [row for row in requests if row[field] is not None]
    lost = [row for row in requests if row[field] is None and row["status"] != OK]
    values = [max(FLOOR_S, row[field]) for row in known]
    high = max([*values, *limits.values(), 10 * FLOOR_S])
    low = max(FLOOR_S, min([*values, *limits.values(), high / 10]) / 1.3)
    frame = Frame(
        title=title,
        note="Counted from the intended send, so that a wait before sending is not hidden."
        if field == "ttft_s"
        else "",
        height=240.0,
        x_high=bins.end_s,
        y_low=low,
        y_high=1.5 * high,
        y_is_log=True,
        x_label=clock,
        y_label=seconds,
    )
    for colour, over in (("c0", False), ("bad", True)):
        points = [
            (frame.x(row["intended_send_s"]), frame.y(max(FLOOR_S, row[field])))
            for row in known
            if (row[field] > limits.get(row["slo_class"], math.inf)) is over
        ]
        frame.layers.append(dots(points, class_=f"dots {colour}"))
        if not over or points:
            name = "over its limit" if over else "requests"
            frame.series.append(Series(name=name, colour=colour))
    top = [(frame.x(row["intended_send_s"]), frame.y(frame.y_high)) for row in lost]
    frame.layers.append(dots(top, class_="dots lost"))
    if lost:
        frame.series.append(Series(name="never came (top edge)", colour="lost"))
    for name, q, colour in (("p50", 0.5, "c1"), ("p99", 0.99, "c3")):
        at, found = [], []
        for number, group in bins.groups(known, lambda row: row["intended_send_s"]):
            at.append(bins.middle_s(number))
            found.append(nearest_rank([row[field] for row in group], q))
        points = [(frame.x(x), frame.y(max(FLOOR_S, y))) for x, y in zip(at, found, strict=True)]
        frame.layers.append(path(points, class_=f"stroke {colour}"))
        frame.series.append(Series(name=name, colour=colour, at=at, values=found, unit="s"))
    frame.layers += promises(frame, limits)
    return frame.html()


def promises(frame: Frame, limits: Mapping[str, float]) -> list[str]:
    """Dashed lines at latencies that were promised, named at the right."""
    parts = []
    for limit in sorted(set(limits.values())):
        names = ", ".join(name for name, value in limits.items() if value == limit)
        y = frame.y(limit)
        parts.append(line((LEFT, y), (frame.right, y), class_="promise"))
        text = f"{names} {seconds(limit)}".strip()
        parts.append(label(frame.right - 4, y - 4, text, text_anchor="end", class_="promise"))
    return parts


def in_flight_chart(requests: Sequence[Row], bins: Bins) -> str:
    """The most requests sent and not ended, and due but not sent, of every moment."""
    at = [bins.middle_s(i) for i in range(bins.count)]
    sent = [(row["sent_s"], row["end_s"]) for row in requests if row["sent_s"] is not None]
    flying = most_open(bins, sent)
    held = [row for row in requests if row["sent_s"] is None or (row["waited_for_cap_s"] or 0) > 0]
    until = [(row["intended_send_s"], row["sent_s"] or row["end_s"]) for row in held]
    waiting = most_open(bins, until)
    frame = Frame(
        title="In flight",
        height=120.0,
        x_high=bins.end_s,
        y_high=1.1 * max([1.0, *flying, *waiting]),
        x_label=clock,
    )
    lines = [("in flight", "c0", flying)]
    if max(waiting) > 0:
        lines.append(("held back or never sent", "c3", waiting))
    for name, colour, values in lines:
        points = [(frame.x(x), frame.y(y)) for x, y in zip(at, values, strict=True)]
        base = [(x, frame.y(0.0)) for x, _ in points]
        frame.layers.append(area(points, base, class_=f"fill {colour}"))
        frame.layers.append(path(points, class_=f"stroke {colour}"))
        frame.series.append(Series(name=name, colour=colour, at=at, values=values))
    return frame.html()


def most_open(bins: Bins, spans: Sequence[tuple[float, float | None]]) -> list[float]:
    """How many spans were open at once at most, in every bin; an end of None is the run's.

    >>> most_open(Bins(end_s=3.0, width_s=1.0), [(0.1, 0.2), (0.3, 1.5), (0.4, 0.6)])
    [2.0, 1.0, 0.0]
    """
    changes = sorted(
        [(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans if end is not None]
    )
    found, number, index = [], 0, 0
    for place in range(bins.count):
        most = number
        while index < len(changes) and changes[index][0] < (place + 1) * bins.width_s:
            number += changes[index][1]
            most = max(most, number)
            index += 1
        found.append(float(most))
    return found


def attainment_chart(requests: Sequence[Row], bins: Bins, classes: dict[str, Any]) -> str:
    """Share of each SLO class's requests that kept every promise, by intended send."""
    frame = Frame(
        title="SLO attainment over time",
        note="By intended send. Capped, unsent and unfinished requests are missed.",
        height=140.0,
        x_high=bins.end_s,
        y_high=1.02,
        x_label=clock,
        y_label=percent,
    )
    for number, name in enumerate(classes):
        members = [row for row in requests if row["slo_class"] == name]
        judged = [row for row in members if row["good"] is not None]
        at, values = [], []
        for place, group in bins.groups(judged, lambda row: row["intended_send_s"]):
            at.append(bins.middle_s(place))
            values.append(sum(row["good"] is True for row in group) / len(group))
        points = [(frame.x(x), frame.y(y)) for x, y in zip(at, values, strict=True)]
        colour = f"c{number % 8}"
        frame.layers.append(path(points, class_=f"stroke {colour}"))
        frame.series.append(Series(name=name, colour=colour, at=at, values=values))
    return frame.html()


def _count(value: float) -> str:
    """No half requests on an axis."""
    return plain(value) if value.is_integer() else ""


def errors_chart(requests: Sequence[Row], bins: Bins) -> str:
    """Requests without a good end by kind, stacked; "" where all ended well."""
    kinds = sorted({row["status"] for row in requests if row["status"] != OK})
    if not kinds:
        return ""
    counts = {kind: [0.0] * bins.count for kind in kinds}
    for row in requests:
        if row["status"] != OK:
            counts[row["status"]][bins.of(row["intended_send_s"])] += 1
    highest = max(sum(counts[kind][i] for kind in kinds) for i in range(bins.count))
    frame = Frame(
        title="Requests without an answer",
        note="By intended send and kind.",
        height=110.0,
        x_high=bins.end_s,
        y_high=1.1 * highest,
        x_label=clock,
        y_label=_count,
    )
    below = [0.0] * bins.count
    at = [bins.middle_s(i) for i in range(bins.count)]
    for number, kind in enumerate(kinds):
        colour = f"c{(number + 3) % 8}"
        for i, count in enumerate(counts[kind]):
            if count:
                top, bottom = frame.y(below[i] + count), frame.y(below[i])
                left = frame.x(i * bins.width_s)
                width = max(1.0, frame.x((i + 1) * bins.width_s) - left - 1.0)
                frame.layers.append(
                    tag(
                        "rect",
                        x=f"{left:.1f}",
                        y=f"{top:.1f}",
                        width=f"{width:.1f}",
                        height=f"{bottom - top:.1f}",
                        class_=f"bar {colour}",
                    )
                )
            below[i] += count
        frame.series.append(Series(name=kind, colour=colour, at=at, values=counts[kind]))
    return frame.html()
