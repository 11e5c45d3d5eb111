"""A comparison finds real changes, and takes chance for chance."""

import json
from random import Random
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from epidote_loadgen.compare.comparison import Comparison, compare
from epidote_loadgen.compare.significance import difference, mean, quantile
from epidote_loadgen.compare.telling import SCHEMA, to_json, told
from epidote_loadgen.outputs.request_columns import COLUMNS


def run(
    seed: int,
    *,
    num: int = 600,
    factor: float = 1.0,
    lost_ratio: float = 0.0,
    classes: tuple[str, ...] = ("chat",),
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A document of requests with log-normal latencies; over 300 ms is missed."""
    rng = Random(seed)
    rows = []
    for index in range(num):
        ttft_s = 0.1 * factor * rng.lognormvariate(0.0, 0.5)
        lost = rng.random() < lost_ratio
        rows.append(
            dict.fromkeys(COLUMNS)
            | {
                "index": index,
                "slo_class": classes[index % len(classes)],
                "status": "reset" if lost else "ok",
                "good": not lost and ttft_s < 0.3,
                "intended_send_s": 0.1 * index,
                "ttft_s": None if lost else ttft_s,
                "e2e_s": None if lost else ttft_s + 0.2,
            }
        )
    return {
        "run": {"seed": seed, "duration_s": 60.0},
        "verdict": {"outcome": "PASS"},
        "classes": {name: {} for name in classes},
        "config": config or {"seed": 1, "target": {"url": "http://a"}},
        "requests": {name: [row[name] for row in rows] for name in COLUMNS},
    }


def outcomes(comparison: Comparison) -> dict[str, bool | None]:
    return {f"{f.class_name}/{f.figure}": f.is_better for f in comparison.figures}


@pytest.mark.parametrize("seed", range(3))
def test_two_runs_of_the_same_service_show_no_difference(seed: int) -> None:
    found = compare(run(2 * seed), run(2 * seed + 1))
    assert set(outcomes(found).values()) == {None}
    assert not found.is_worse


def test_a_slower_service_is_worse_in_latency_and_attainment() -> None:
    found = compare(run(1), run(2, factor=1.6))
    told_ = outcomes(found)
    assert told_["/TTFT p50"] is False
    assert told_["/attainment"] is False
    assert told_["/answered"] is None
    assert found.is_worse


def test_a_faster_service_is_better_and_not_worse() -> None:
    found = compare(run(1, factor=1.6), run(2))
    assert outcomes(found)["/TTFT p50"] is True
    assert not found.is_worse


def test_lost_requests_are_worse_even_when_the_rest_is_as_fast() -> None:
    found = compare(run(1), run(2, lost_ratio=0.1))
    assert outcomes(found)["/answered"] is False
    assert outcomes(found)["/TTFT p50"] is None


def test_classes_are_compared_each_where_there_are_several() -> None:
    names = {f.class_name for f in compare(run(1), run(2)).figures}
    assert names == {""}
    two = ("text", "image")
    names = {f.class_name for f in compare(run(1, classes=two), run(2, classes=two)).figures}
    assert names == {"", "text", "image"}


def test_what_was_asked_differently_is_named() -> None:
    other = {"seed": 2, "target": {"url": "http://a", "model": "m"}}
    found = compare(run(1), run(2, config=other))
    assert found.asked_differs == (("seed", 1, 2), ("target.model", None, "m"))


def test_a_run_without_answers_can_be_compared() -> None:
    found = compare(run(1), run(2, lost_ratio=1.1))
    assert outcomes(found) == {"/attainment": False, "/answered": False}


def test_a_comparison_is_told_to_people_and_programs() -> None:
    found = compare(run(1), run(2, factor=1.6, config={"seed": 3}))
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(told(found))
    text = capture.get()
    assert "seed: 1 → 3" in text
    assert "worse" in text
    assert "TTFT p50" in text
    value = to_json(found)
    assert value["schema"] == SCHEMA
    assert value["is_worse"] is True
    assert {figure["outcome"] for figure in value["figures"]} == {"worse", "no difference"}
    json.dumps(value, allow_nan=False)


def test_neighbours_that_hang_together_make_the_interval_wider() -> None:
    rng = np.random.default_rng(1)
    apart = (rng.random(900) < 0.9).astype(float)
    together = np.sort(apart)  # the misses as one stall
    loose = difference(list(apart), list(apart), mean)
    tight = difference(list(together), list(together), mean)
    assert tight.high - tight.low > 2 * (loose.high - loose.low)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    missed = 0
    for seed in range(40):
        one, other = rng.exponential(1.0, 200), rng.exponential(1.0, 200)
        missed += difference(list(one), list(other), quantile(0.5), seed=seed).is_significant
    assert missed <= 7  # 2 are expected; more than 7 by chance once in a thousand


def test_nothing_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="both runs"):
        difference([], [1.0], mean)
