"""This file is about the frame around a plot: title, legend, axes, hovering."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from epidote_loadgen.report.scale import Label, Scale, plain
from epidote_loadgen.report.svg import label, line, tag

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1000.0, 64.0, 16.0, 10.0, 26.0
HALF_WIDTH = 500.0  # of plots that stand in pairs: their text keeps its size


@dataclass(frozen=True, kw_only=True)
class Series:
    """For the legend and for hovering: `values` stand at `at`, in the x axis's unit."""

    name: str
    colour: str  # a CSS class: c0 … c7, good, bad
    at: Sequence[float] = ()
    values: Sequence[float | None] = ()
    unit: str = ""


@dataclass(kw_only=True)
class Frame:
    """A plot area of `height` pixels with its axes; layers are drawn in their order."""

    title: str
    note: str = ""
    width: float = WIDTH
    height: float = 220.0
    x_low: float = 0.0
    x_high: float
    y_low: float = 0.0
    y_high: float
    x_is_log: bool = False
    y_is_log: bool = False
    x_label: Label = plain
    y_label: Label = plain
    series: list[Series] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.x_high <= self.x_low:
            self.x_high = self.x_low + 1.0
        if self.y_high <= self.y_low:
            self.y_high = self.y_low + 1.0

    @property
    def x(self) -> Scale:
        return Scale(
            low=self.x_low, high=self.x_high, start=LEFT, end=self.right, is_log=self.x_is_log
        )

    @property
    def right(self) -> float:
        """The plot area's right edge in pixels."""
        return self.width - RIGHT

    @property
    def y(self) -> Scale:
        return Scale(
            low=self.y_low,
            high=self.y_high,
            start=TOP + self.height,
            end=TOP,
            is_log=self.y_is_log,
        )

    def html(self) -> str:
        """The figure: heading, legend, SVG."""
        total = TOP + self.height + BOTTOM
        hover = json.dumps(
            [
                {
                    "name": s.name,
                    "colour": s.colour,
                    "unit": s.unit,
                    "at": [round(at, 4) for at in s.at],
                    "values": [None if v is None else round(v, 6) for v in s.values],
                }
                for s in self.series
                if s.at
            ]
        )
        picture = tag(
            "svg",
            *self._grid(),
            *self.layers,
            tag("line", class_="cursor", y1=TOP, y2=TOP + self.height, x1=0, x2=0),
            viewBox=f"0 0 {self.width:g} {total:g}",
            role="img",
            aria_label=self.title,
            data_left=LEFT,
            data_width=self.width,
            data_right=self.right,
            data_low=self.x_low,
            data_high=self.x_high,
            data_log=int(self.x_is_log),
            data_series=hover,
        )
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f"<figure><figcaption><h3>{escape(self.title)}</h3>{self._legend()}</figcaption>"
            f"{note}{picture}</figure>"
        )

    def _legend(self) -> str:
        items = "".join(f'<li class="{s.colour}">{escape(s.name)}</li>' for s in self.series)
        return f'<ul class="legend">{items}</ul>' if items else ""

    def _grid(self) -> list[str]:
        parts = []
        for value in self.y.ticks(5):
            y = self.y(value)
            parts.append(line((LEFT, y), (self.right, y), class_="grid"))
            parts.append(label(LEFT - 8, y + 4, self.y_label(value), text_anchor="end"))
        for value in self.x.ticks(round(self.width / 110.0)):
            x = self.x(value)
            parts.append(line((x, TOP + self.height), (x, TOP + self.height + 4), class_="axis"))
            text = self.x_label(value)
            parts.append(label(x, TOP + self.height + 18, text, text_anchor="middle"))
        base = TOP + self.height
        parts.append(line((LEFT, base), (self.right, base), class_="axis"))
        return parts
