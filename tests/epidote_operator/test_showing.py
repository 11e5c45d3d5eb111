"""A shown decision leaves out nothing that the planner said about what it did not believe."""

from dataclasses import replace

from epidote_operator.showing import plan_json, plan_text
from epidote_planner.fakes import image_traffic, policy, snapshot, workers
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan


def test_hold_is_shown_with_the_field_that_could_not_be() -> None:
    seen = snapshot(10.0, workers(2, 2, 1), (replace(image_traffic(5.0), arrival_rps=-1.0),))
    decided = plan(seen, policy())
    shown = plan_json(decided)
    assert shown["holds"] == [
        {"lane": "", "reason": "MetricsMissing", "field": "traffic.image.arrival_rps"}
    ]
    assert "everything: MetricsMissing (traffic.image.arrival_rps)" in plan_text(decided, ())


def test_every_step_stands_apart_from_its_figures() -> None:
    decided = plan(snapshot(10.0, workers(2, 2, 1), (image_traffic(5.0),)), policy())
    text = plan_text(decided, ())
    assert decided.trace
    for step in decided.trace:
        assert f"\n{step.name} " in text


def test_memory_that_could_not_be_read_is_shown_with_the_steps() -> None:
    memory = PlannerMemory.from_json({"version": 9})
    decided = plan(snapshot(10.0, workers(2, 2, 1), (image_traffic(5.0),)), policy(), memory)
    assert plan_json(decided)["steps"][0]["note"] == "version: want 1, got 9"
    assert "memory    version: want 1, got 9" in plan_text(decided, ())
