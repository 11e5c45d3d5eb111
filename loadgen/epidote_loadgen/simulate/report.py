"""This file is about one run as a page: load, workers, latency and decisions on one time axis.

Plain SVG inside one HTML file: no script, no network.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from epidote_loadgen.simulate.outcome import Moment, Outcome

WIDTH, HEIGHT, LEFT = 1000, 150, 60
LATENCY_TOP = 2.0  # times the SLO; worse than that is drawn at the top
TIME_STEPS = (  # (step, unit in seconds, its name)
    (10.0, 1.0, "s"),
    (60.0, 60.0, "min"),
    (300.0, 60.0, "min"),
    (900.0, 60.0, "min"),
    (3600.0, 3600.0, "h"),
    (4 * 3600.0, 3600.0, "h"),
    (86_400.0, 86_400.0, "d"),
)
Worst = Callable[[Sequence[float]], float]
COLORS = ("#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed", "#0891b2")
STYLE = """
body{font:14px system-ui,sans-serif;margin:24px;max-width:1080px;color:#1f2937}
table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left;vertical-align:top}
svg{display:block;margin:4px 0 18px}text{font-size:11px;fill:#374151}
h2{font-size:15px;margin:18px 0 2px}.muted{color:#6b7280}
"""


def html_report(outcome: Outcome, *, title: str, configuration: str) -> str:
    """A self-contained page."""
    moments = outcome.moments
    modalities = sorted({name for m in moments for name in m.arrival_rps})
    lanes = sorted({name for m in moments for name in m.workers})
    load = {name: [m.arrival_rps.get(name, 0.0) for m in moments] for name in modalities}
    load["images"] = [m.image_rps for m in moments]
    workers = {name: [float(m.workers.get(name, 0)) for m in moments] for name in lanes}
    met = {
        "TTFT in time": [m.ttft_met for m in moments],
        "TPOT in time": [m.tpot_met for m in moments],
    }
    latency = {
        "TTFT p99 / SLO": [m.ttft_over_slo for m in moments],
        "TPOT p99 / SLO": [m.tpot_over_slo for m in moments],
    }
    times = [m.at_s for m in moments]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"<p class=muted>{escape(configuration)}</p>{_figures(outcome)}"
        f"<h2>Load by modality, per second</h2>{_chart(times, load)}"
        f"<h2>Workers by role</h2>{_chart(times, workers, steps=True)}"
        f"<h2>Latency over its limit: p99 of what finished in a tick, 1 is the SLO</h2>"
        f"{_chart(times, latency, top=LATENCY_TOP, limit=1.0)}"
        f"<h2>Share of requests inside the SLO</h2>{_chart(times, met, top=1.0, worst=min)}"
        f"<h2>Decisions</h2>{_decisions(moments)}</html>"
    )


def _figures(outcome: Outcome) -> str:
    rows = {
        "requests": f"{outcome.num_requests}",
        "attainment": f"{outcome.attainment:.4f}",
        "goodput": f"{outcome.goodput_rps:.3f} requests/s",
        "TTFT p50 / p90 / p99": _three(outcome.ttft_s),
        "TPOT p50 / p90 / p99": _three(outcome.tpot_s),
        "GPU-seconds": f"{outcome.gpu_seconds:.0f} ({outcome.mean_gpus:.2f} GPUs on average)",
        "GPU-seconds per good request": _seconds(outcome.gpu_seconds_per_good),
        "role switches": f"{outcome.num_switches}",
        "workers started / removed": f"{outcome.num_starts} / {outcome.num_removals}",
        "reversals / regrown": f"{outcome.num_reversals} / {outcome.num_regrown}",
    }
    cells = "".join(f"<tr><th>{escape(k)}<td>{escape(v)}" for k, v in rows.items())
    return f"<table>{cells}</table>"


def _seconds(value: float | None) -> str:
    return "none was good" if value is None else f"{value:.3f}"


def _three(quantiles: "dict[str, float] | object") -> str:
    assert isinstance(quantiles, dict)
    return " / ".join(f"{quantiles[name]:.3f}" for name in ("p50", "p90", "p99")) + " s"


def _chart(
    times: Sequence[float],
    lines: dict[str, list[float]],
    *,
    steps: bool = False,
    top: float | None = None,
    limit: float | None = None,
    worst: Worst = max,
) -> str:
    """`limit` draws a dashed line; of points that share a pixel, `worst` tells which is shown."""
    highest = top or max((max(values, default=0.0) for values in lines.values()), default=0.0)
    highest = highest or 1.0
    last = times[-1] if times else 1.0
    plot = WIDTH - LEFT
    parts = [
        f'<svg width="{WIDTH}" height="{HEIGHT + 40}" role="img">',
        f'<rect x="{LEFT}" y="0" width="{plot}" height="{HEIGHT}" fill="#f3f4f6"/>',
        f'<text x="{LEFT - 6}" y="10" text-anchor="end">{highest:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT}" text-anchor="end">0</text>',
    ]
    for at_s, label in _time_labels(last):
        x = LEFT + plot * at_s / last
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 14}">{label}</text>')
    if limit is not None:
        y = HEIGHT * (1 - limit / highest)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#6b7280" '
            f'stroke-dasharray="4 3"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{limit:.3g}</text>"
        )
    for index, (name, values) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        points = _points(times, values, last, highest, plot, steps=steps, worst=worst)
        parts.append(f'<polyline fill="none" stroke="{color}" points="{points}"/>')
        x = LEFT + 130 * index
        parts.append(f'<text x="{x}" y="{HEIGHT + 32}" style="fill:{color}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _points(
    times: Sequence[float],
    values: Sequence[float],
    last: float,
    highest: float,
    plot: int,
    *,
    steps: bool,
    worst: Worst,
) -> str:
    """At most two points a pixel: a week of ticks stays a small file, and shows every burst."""
    stride = max(1, len(times) // (2 * plot))
    points: list[str] = []
    before: str | None = None
    for start in range(0, len(times), stride):
        x = LEFT + plot * times[start] / last
        value = worst(values[start : start + stride])
        y = f"{HEIGHT * (1 - min(1.0, value / highest)):.1f}"
        if steps and before is not None:
            points.append(f"{x:.1f},{before}")
        points.append(f"{x:.1f},{y}")
        before = y
    return " ".join(points)


def _time_labels(last_s: float) -> list[tuple[float, str]]:
    """About ten round times of the axis, in the unit that reads best."""
    for step_s, unit_s, unit in TIME_STEPS:
        if last_s / step_s <= 12:
            count = int(last_s / step_s) + 1
            return [(i * step_s, f"{i * step_s / unit_s:g} {unit}") for i in range(count)]
    return [(0.0, "0"), (last_s, f"{last_s / 86_400:.1f} d")]


def _decisions(moments: Iterable[Moment], most: int = 400) -> str:
    """The ticks that changed something."""
    changed = [m for m in moments if m.changed]
    rows = "".join(
        f"<tr><td>{m.at_s:.0f} s<td>{escape(m.reason)}<td>{escape(m.text)}" for m in changed[:most]
    )
    note = f"<p class=muted>{len(changed)} in all.</p>" if len(changed) > most else ""
    return f"<table>{rows}</table>{note}"
