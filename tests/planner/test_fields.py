"""Settings and memories that cannot be: refused by name, or a fresh start that says so."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_planner.fakes import PROFILE, PretendCluster, image_traffic, policy
from epidote_planner.memory import PlannerMemory
from epidote_planner.performance import DecodeCost, EncodeCost, PrefillCost, TransferCost
from epidote_planner.policy import (
    Bounds,
    CapacityPolicy,
    DampingPolicy,
    DemandPolicy,
    PressurePolicy,
)
from epidote_planner.text_adapter import TextObservation, TextReplay

NAN, INF = float("nan"), float("inf")
TEXT: Any = "fast"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: PrefillCost(per_token_s=1e-4, max_tokens=0), "prefill.max_tokens: want a whole"),
        (lambda: PrefillCost(per_token_s=TEXT), "prefill.per_token_s: want a number >= 0"),
        (lambda: PrefillCost(per_token_s=0.0), "prefill.base_s"),
        (lambda: EncodeCost(per_image_s=NAN), "encode.per_image_s"),
        (lambda: EncodeCost(max_images=0), "encode.max_images"),
        (lambda: DecodeCost(base_s=-1.0), "decode.base_s"),
        (lambda: DecodeCost(base_s=0.0), "decode.base_s"),
        (lambda: DecodeCost(base_s=0.01, max_sequences=0), "decode.max_sequences"),
        (lambda: DecodeCost(base_s=0.01, kv_tokens=True), "decode.kv_tokens"),
        (lambda: TransferCost(base_s=INF), "transfer.base_s"),
        (lambda: replace(PROFILE, startup_s=-1.0), "startup_s"),
        (lambda: replace(PROFILE, provenance=" "), "provenance: want a text"),
        (lambda: DemandPolicy(smoothing_s=0.0), "demand.smoothing_s: want a number > 0"),
        (lambda: DemandPolicy(season_buckets=0), "demand.season_buckets"),
        (lambda: DampingPolicy(dwell_s=-1.0), "damping.dwell_s"),
        (lambda: DampingPolicy(shrink_window_s=NAN), "damping.shrink_window_s"),
        (lambda: CapacityPolicy(drain_s=0.0), "capacity.drain_s"),
        (lambda: CapacityPolicy(correction_min=2.0, correction_max=1.0), "correction_max"),
        (lambda: PressurePolicy(max_shed_ratio=1.5), "pressure.max_shed_ratio"),
        (lambda: Bounds(least=3, most=2), "bounds need"),
        (lambda: policy(tick_s=0.0), "tick_s"),
        (lambda: policy(gpus_per_worker=0), "gpus_per_worker"),
        (lambda: policy(gpu_budget=4, pool=Bounds(least=5)), "pool.least: want at most 4"),
        (lambda: policy(gpu_budget=2), "the roles' minima and ratios need 3 workers"),
    ],
)
def test_setting_that_cannot_be_is_refused_by_its_field(
    make: Callable[[], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_dwell_follows_from_what_a_switch_costs_unless_it_is_asked_for() -> None:
    slow = replace(PROFILE, switch_s=1.0, reload_switch_s=6.0)
    assert policy(profile=slow).dwell_s == 60.0
    assert policy(profile=slow, damping=DampingPolicy(dwell_s=5.0)).dwell_s == 5.0


def stored() -> dict[str, Any]:
    cluster = PretendCluster(policy=policy())
    cluster.run(5, image_traffic(5.0))
    assert cluster.memory is not None
    return json.loads(json.dumps(cluster.memory.to_json()))


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return found + [deep for key, item in items for deep in paths(item, (*path, key))]


@given(
    st.sampled_from(paths(stored())),
    st.sampled_from(["x", "", None, -7.0, 1e300, 10**400, INF, NAN, True, [], [[1]], {}, {"a": 1}]),
    st.booleans(),
)
@settings(max_examples=150)
def test_spoilt_memory_never_stops_the_planner(
    path: tuple[Any, ...], value: object, is_removed: bool
) -> None:
    data = stored()
    place = data
    for key in path[:-1]:
        place = place[key]
    if is_removed:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    memory = PlannerMemory.from_json(data)
    cluster = PretendCluster(policy=policy(), memory=memory, now_s=50.0)
    decided = cluster.tick(image_traffic(5.0))
    assert (decided.trace[0].name == "memory") == bool(memory.unreadable)
    json.dumps(decided.memory.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"version": 2}, "version: want 1, got 2"),
        (["no", "object"], "memory: want an object"),
        ({"version": 1, "pool_need": {"at_s": 1.0, "level": "x"}}, "pool_need.level"),
        ({"version": 1, "modalities": {"image": {"rates": {}}}}, "modalities.image.rates.requests"),
        ({"version": 1, "modalities": {"smell": {}}}, "smell"),
    ],
)
def test_plan_tells_why_it_started_afresh(data: Any, told: str) -> None:
    memory = PlannerMemory.from_json(data)
    assert memory == PlannerMemory()
    decided = PretendCluster(policy=policy(), memory=memory).tick(image_traffic(5.0))
    assert told in decided.trace[0].note
    assert "unreadable" not in decided.memory.to_json()


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (("modalities", "image", "rates", "output_tokens", "level"), 1e20),
        (("modalities", "image", "shapes", "input_tokens", "p99"), 1e20),
        (("pool_need", "promises", 0, 1), 1e20),
        (("pool_steady", "error2"), 1e40),  # a square itself
    ],
)
def test_stored_figures_of_which_a_square_is_no_number_start_afresh(
    path: tuple[Any, ...], most: float
) -> None:
    data = stored()
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 1e300
    memory = PlannerMemory.from_json(data)
    assert memory == PlannerMemory()
    assert f"<= {most:g}" in memory.unreadable
    place[path[-1]] = 0.99 * most
    assert not PlannerMemory.from_json(data).unreadable


def test_stored_whole_number_beyond_every_float_starts_afresh() -> None:
    data = stored()
    data["pool_need"]["level"] = 10**400
    assert ".level: want a number" in PlannerMemory.from_json(data).unreadable


def test_stored_series_that_began_after_its_last_figure_starts_afresh() -> None:
    data = stored()
    data["pool_need"]["since_s"] = data["pool_need"]["at_s"] + 1.0
    assert ".since_s: want" in PlannerMemory.from_json(data).unreadable


@pytest.mark.parametrize(
    ("requests_rps", "tokens_mean"), [(1e-300, 200.0), (5.0, 1e-300), (1e-300, 1e-300)]
)
def test_stored_rates_of_next_to_nothing_do_not_stop_the_planner(
    requests_rps: float, tokens_mean: float
) -> None:
    """A rate a request, and a quantile over a mean, are quotients that can leave the numbers."""
    data = stored()
    image = data["modalities"]["image"]
    image["rates"]["requests"]["level"] = requests_rps
    image["shapes"]["input_tokens"]["mean"] = tokens_mean
    memory = PlannerMemory.from_json(data)
    assert not memory.unreadable
    cluster = PretendCluster(policy=policy(), memory=memory, now_s=50.0)
    for _ in range(5):
        decided = cluster.tick(image_traffic(0.0))
        json.dumps(decided.memory.to_json(), allow_nan=False)


def test_replay_tool_that_hands_back_a_broken_memory_starts_afresh() -> None:
    seen = TextObservation(now_s=10.0, num_prefill=2, num_decode=2, arrival_rps=5.0)
    broken = TextReplay(policy(), {"version": 1, "modalities": "?"}).step(seen)
    assert broken == TextReplay(policy()).step(seen)
