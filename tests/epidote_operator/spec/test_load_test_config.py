"""A LoadTest's run file: what the operator says of it, the load generator says as well."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from epidote_loadgen.config import arrivals_section, class_section
from epidote_loadgen.config.run_file import RunFile
from epidote_operator.spec.load_test_config import (
    ARRIVALS,
    CLASSES,
    SECTIONS,
    config_problems,
)
from epidote_operator.spec.parsing import parse_load_test

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "loadgen/examples").glob("*.yaml"))
RUN: dict[str, Any] = {
    "arrivals": {"rate": 1, "duration_s": 1},
    "classes": {"sums": {"kind": "questions", "images": {"count": 0}}},
}
TARGET = {"url": "http://a"}


def kinds(union: Any) -> tuple[str, ...]:
    """`kind` of every section of an annotated union."""
    sections = [get_args(s)[0] if get_args(s) else s for s in get_args(get_args(union)[0])]
    return tuple(get_args(s.model_fields["kind"].annotation)[0] for s in sections)


def test_names_are_the_load_generators_own() -> None:
    assert set(SECTIONS) == set(RunFile.model_fields)
    assert kinds(arrivals_section.ArrivalsSection) == ARRIVALS
    assert kinds(class_section.ClassSection) == CLASSES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_of_the_load_generator_is_let_in(path: Path) -> None:
    assert list(config_problems(yaml.safe_load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"arrivals": None}, "arrivals"),
        ({"arrivals": 4}, "arrivals"),
        ({"arrivals": {"kind": "poisson", "rate": 1}}, "arrivals.kind"),
        ({"arrivals": {"kind": 3}}, "arrivals.kind"),
        ({"classes": None}, "classes"),
        ({"classes": {}}, "classes"),
        ({"classes": {"a": "questions"}}, "classes.a"),
        ({"classes": {"a": {}}}, "classes.a.kind"),
        ({"classes": {"a": {"kind": "open"}}}, "classes.a.kind"),
        ({"slo": []}, "slo"),
        ({"limits": "none"}, "limits"),
        ({"objectives": []}, "objectives"),
    ],
)
def test_what_it_would_refuse_is_refused_by_field(changes: dict[str, Any], path: str) -> None:
    config = {**RUN, **changes}
    assert [problem.path for problem in config_problems(config)] == [f"spec.config.{path}"]
    with pytest.raises(ValidationError):
        RunFile.model_validate({**config, "target": TARGET})


def test_a_trace_brings_its_own_class() -> None:
    config = {"arrivals": {"kind": "trace", "path": "x.csv"}}
    assert list(config_problems(config)) == []
    RunFile.model_validate({**config, "target": TARGET})


def test_another_image_may_know_other_sections() -> None:
    spec = {"target": TARGET, "config": {**RUN, "phases": {}}, "image": "mine:2"}
    assert parse_load_test(spec).config["phases"] == {}
