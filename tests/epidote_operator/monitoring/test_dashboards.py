"""Dashboards and rules read metrics that exist, and are what the chart packs."""

import re
from pathlib import Path
from typing import Any

import pytest

from epidote_core import metric_names
from epidote_operator.monitoring.alerts import rules
from epidote_operator.monitoring.write_monitoring import DASHBOARDS, main, rendered

CHART = Path(__file__).resolve().parents[3] / "charts/epidote"
KNOWN = {value for name, value in vars(metric_names).items() if name.isupper()}
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "")


def metrics_of(expr: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', "", expr)
    return set(re.findall(r"\b(?:epidote_|vllm:)[a-zA-Z0-9_]+", bare))


def is_known(metric: str) -> bool:
    return any(metric.removesuffix(suffix) in KNOWN for suffix in SUFFIXES)


def expressions(built: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in built["panels"] for target in panel.get("targets", [])]


def test_the_chart_packs_what_the_code_says() -> None:
    for name, text in rendered().items():
        assert (CHART / name).read_text(encoding="utf-8") == text, (
            f"{name} is stale: run `python -m epidote_operator.monitoring.write_monitoring`"
        )


def test_the_command_writes_what_the_test_compares(tmp_path: Path) -> None:
    main(tmp_path)
    assert {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    } == rendered()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_reads_metrics_that_exist(name: str) -> None:
    for expr in expressions(DASHBOARDS[name]()):
        found = metrics_of(expr)
        assert found, expr
        assert all(map(is_known, found)), expr
        assert expr.count("(") == expr.count(")")
        assert expr.count("{") == expr.count("}")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    taken = set()
    for panel in DASHBOARDS[name]()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_datasource_is_the_viewers_choice(name: str) -> None:
    built = DASHBOARDS[name]()
    assert built["templating"]["list"][0]["type"] == "datasource"
    for panel in built["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"


def test_every_rule_reads_metrics_that_exist() -> None:
    for group in rules()["groups"]:
        for rule in group["rules"]:
            found = metrics_of(rule["expr"])
            assert found, rule["alert"]
            assert all(map(is_known, found)), rule["expr"]
            assert rule["annotations"]["description"]


def test_a_spec_that_is_not_followed_warns_and_a_fleet_that_does_not_serve_wakes_somebody() -> None:
    found = {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}
    warning, critical = found["EpidoteSpecNotFollowed"], found["EpidoteServiceNotReady"]
    severities = [rule["labels"]["severity"] for rule in (warning, critical)]
    assert severities == ["warning", "critical"]
    aside = "InvalidSpec|NameTaken|SecretChanged"
    assert f'reason=~"{aside}"' in warning["expr"]
    assert "last good spec" in warning["annotations"]["summary"]
    assert "{{ $labels.reason }}" in warning["annotations"]["summary"]
    assert f'reason!~"{aside}"' in critical["expr"]
    assert "epidote_operator_ready_workers == 0" in critical["expr"], "a bad spec hides no outage"
