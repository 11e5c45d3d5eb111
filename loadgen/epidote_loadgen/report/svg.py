"""This file is about the few SVG shapes that the plots are made of."""

from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; `_` in an attribute's name stands for `-`, `class_` for `class`."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{text}>{''.join(inside)}</{name}>"


def label(x: float, y: float, text: str, **attributes: object) -> str:
    return tag("text", escape(text), x=f"{x:.1f}", y=f"{y:.1f}", **attributes)


def line(start: Point, end: Point, **attributes: object) -> str:
    (x1, y1), (x2, y2) = start, end
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", **attributes)


def path(points: Sequence[Point], **attributes: object) -> str:
    """A line through the points."""
    if not points:
        return ""
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=d, fill="none", **attributes)


def area(points: Sequence[Point], base: Sequence[Point], **attributes: object) -> str:
    """What lies between two lines over the same x."""
    if not points:
        return ""
    around = [*points, *reversed(base)]
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in around) + "Z"
    return tag("path", d=d, **attributes)


def dots(points: Iterable[Point], **attributes: object) -> str:
    """Round dots as one path; those that would cover each other are drawn once."""
    places = dict.fromkeys((round(2 * x) / 2, round(2 * y) / 2) for x, y in points)
    if not places:
        return ""
    d = "".join(f"M{x:g} {y:g}h0" for x, y in places)
    return tag("path", d=d, fill="none", stroke_linecap="round", **attributes)


def steps(points: Sequence[Point], end_x: float) -> list[Point]:
    """Corners of a line that holds each value until the next one."""
    corners: list[Point] = []
    for index, (x, y) in enumerate(points):
        corners.append((x, y))
        corners.append((points[index + 1][0] if index + 1 < len(points) else end_x, y))
    return corners
