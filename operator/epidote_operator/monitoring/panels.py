"""This file is about Grafana panels as plain values, in the JSON model of Grafana 10 and later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid


@dataclass(frozen=True, kw_only=True)
class Query:
    """One line of a panel. `legend` may hold `{{label}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph (`timeseries`), number (`stat`) or state history (`state-timeline`).

    `unit` is Grafana's: s, percentunit, reqps, short. `limit` draws a dashed threshold.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None

    def json(self, number: int, x: int, y: int) -> Json:
        custom: Json = {"fillOpacity": 20 if self.stacked else 5, "lineWidth": 1}
        if self.stacked:
            custom["stacking"] = {"mode": "normal"}
        defaults: Json = {"unit": self.unit, "min": 0, "custom": custom}
        if self.most is not None:
            defaults["max"] = self.most
        overrides = [
            {
                "matcher": {"id": "byRegexp", "options": "/^(SLO|budget|desired).*/"},
                "properties": [
                    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.stacking", "value": {"mode": "none"}},
                ],
            }
        ]
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": overrides},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": DATASOURCE,
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                }
                for place, query in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A drop-down: the values of `label` in `metric`."""

    name: str
    metric: str
    label: str

    def json(self) -> Json:
        query = f"label_values({self.metric}, {self.label})"
        return {
            "name": self.name,
            "label": self.name.replace("_", " "),
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": self.name},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }


def dashboard(
    uid: str, title: str, rows: Sequence[tuple[str, Sequence[Panel]]], variables: Sequence[Variable]
) -> Json:
    """A whole dashboard; panels flow from left to right inside titled rows."""
    panels: list[Json] = []
    y = 0
    for name, row in rows:
        panels.append(_row(len(panels) + 1, name, y))
        x, tallest, y = 0, 0, y + 1
        for panel in row:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    source = {"name": "datasource", "label": "datasource", "type": "datasource"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["epidote"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {**source, "query": "prometheus", "current": {}},
                *(item.json() for item in variables),
            ]
        },
        "panels": panels,
    }


def _row(number: int, title: str, y: int) -> Json:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
