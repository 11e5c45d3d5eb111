"""The closed forms against engines that count every step."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_loadgen.simulate.coupled_engine import CoupledEngine
from epidote_loadgen.simulate.decode_engine import DecodeEngine
from epidote_loadgen.simulate.engines import EncodeEngine, PrefillEngine
from epidote_loadgen.simulate.events import Events
from epidote_loadgen.simulate.prefix_cache import PrefixCache
from epidote_loadgen.simulate.profiles import load_profile, profile_names
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
)

PROFILE = PerformanceProfile(
    name="steps",
    provenance="round numbers",
    encode=EncodeCost(base_s=0.01, per_token_s=0.001, max_images=2),
    prefill=PrefillCost(base_s=0.01, per_token_s=0.001, per_pair_s=1e-6, max_tokens=100),
    decode=DecodeCost(
        base_s=0.02, per_sequence_s=0.003, per_context_token_s=1e-5, max_sequences=4, kv_tokens=500
    ),
)


def stepwise(arrivals: list[tuple[float, int, int]]) -> list[float]:
    """Decode step by step: (arrival, prompt, output) -> end times. The obvious, slow engine."""
    cost = PROFILE.decode
    waiting = [(at, index) for index, (at, _, _) in enumerate(arrivals)]
    running: dict[int, int] = {}
    ends = [0.0] * len(arrivals)
    now_s = 0.0
    while waiting or running:
        if not running:
            now_s = max(now_s, waiting[0][0])
        while waiting and waiting[0][0] <= now_s + 1e-12 and len(running) < cost.max_sequences:
            index = waiting[0][1]
            held = sum(arrivals[i][1] + arrivals[i][2] for i in running)
            if held + arrivals[index][1] + arrivals[index][2] > cost.kv_tokens and running:
                break
            waiting.pop(0)
            running[index] = 1
        context = sum(arrivals[i][1] + made for i, made in running.items())
        now_s += cost.seconds(len(running), context)
        for index in list(running):
            running[index] += 1
            if running[index] >= arrivals[index][2]:
                ends[index] = now_s
                del running[index]
    return ends


@given(
    st.lists(
        st.tuples(st.integers(0, 300_000), st.integers(1, 200), st.integers(2, 60)),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=80)
def test_decode_ends_when_the_step_by_step_engine_says(
    drawn: list[tuple[int, int, int]],
) -> None:
    # Every step takes whole multiples of 10 µs. Arrivals have each a part of one of their own, so
    # that none falls together with a step's end: which comes first is then a matter of rounding.
    arrivals = sorted(
        ((ticks + (index + 0.5) / 13) * 1e-5, prompt, output)
        for index, (ticks, prompt, output) in enumerate(drawn)
    )
    events = Events()
    ends: dict[int, float] = {}
    engine = DecodeEngine(PROFILE, events, lambda r, now_s: ends.update({id(r): now_s}))
    requests = [SimRequest(at, prompt, output) for at, prompt, output in arrivals]
    for request in requests:
        events.run_until(request.arrival_s)
        engine.add(request, request.arrival_s)
    events.run_until(1e9)
    assert [ends[id(r)] for r in requests] == pytest.approx(stepwise(arrivals), rel=1e-6)
    assert engine.is_empty
    assert engine.reserved == 0
    assert engine.context == pytest.approx(0.0)


def test_prefill_of_a_long_prompt_costs_its_chunks_and_its_pairs() -> None:
    events = Events()
    ends: list[float] = []
    engine = PrefillEngine(PROFILE, events, lambda r, now_s: ends.append(now_s), None)
    engine.add(SimRequest(0.0, 250, 1), 0.0)
    events.run_until(10.0)
    assert ends == [pytest.approx(PROFILE.prefill.seconds(250))]


def test_short_prompts_share_one_step() -> None:
    events = Events()
    ends: list[float] = []
    engine = PrefillEngine(PROFILE, events, lambda r, now_s: ends.append(now_s), None)
    engine.add(SimRequest(0.0, 10, 1), 0.0)
    for _ in range(3):
        engine.add(SimRequest(0.0, 20, 1), 0.0)
    events.run_until(10.0)
    assert ends[1] == ends[2] == ends[3]


def test_encoder_batches_up_to_its_limit() -> None:
    events = Events()
    ends: list[float] = []
    engine = EncodeEngine(PROFILE, events, lambda r, now_s: ends.append(now_s))
    for _ in range(3):
        engine.add(SimRequest(0.0, 1, 1, (100,)), 1, 100, 0.0)
    events.run_until(10.0)
    assert ends == [pytest.approx(0.11), pytest.approx(0.32), pytest.approx(0.32)]


def test_everyone_in_a_coupled_batch_waits_for_an_image() -> None:
    def tpot(with_image: bool) -> float:
        events = Events()
        engine = CoupledEngine(
            PROFILE,
            events,
            lambda r, now_s: setattr(r, "first_token_s", now_s),
            lambda r, now_s: setattr(r, "finished_s", now_s),
            None,
        )
        decoding = SimRequest(0.0, 10, 30)
        engine.add(decoding, 0.0)
        events.run_until(0.2)
        if with_image:
            engine.add(SimRequest(0.2, 10, 1, (50,)), 0.2)
        events.run_until(100.0)
        assert engine.is_empty
        return decoding.tpot_s

    assert tpot(True) > tpot(False) + 0.05 / 29


def test_drained_coupled_worker_keeps_what_it_computes() -> None:
    events = Events()
    done: list[SimRequest] = []
    engine = CoupledEngine(
        PROFILE, events, lambda r, now_s: None, lambda r, now_s: done.append(r), None
    )
    first, second = SimRequest(0.0, 90, 5), SimRequest(0.0, 90, 5)
    engine.add(first, 0.0)
    engine.add(second, 0.0)
    assert engine.give_back() == [second]
    events.run_until(100.0)
    assert done == [first]


def test_prefix_cache_hits_only_an_unbroken_prefix_and_never_the_last_token() -> None:
    cache = PrefixCache(capacity_blocks=4, block_tokens=10)
    cache.insert(SimRequest(0.0, 30, 1, block_ids=(1, 2, 3)))
    assert cache.hit_tokens(SimRequest(0.0, 30, 1, block_ids=(1, 2, 3))) == 29
    assert cache.hit_tokens(SimRequest(0.0, 30, 1, block_ids=(1, 9, 3))) == 10
    assert cache.hit_tokens(SimRequest(0.0, 30, 1, block_ids=(9, 2, 3))) == 0
    cache.insert(SimRequest(0.0, 30, 1, block_ids=(7, 8, 9)))
    assert cache.hit_tokens(SimRequest(0.0, 30, 1, block_ids=(1, 2, 3))) == 10


def test_every_profile_says_where_its_numbers_come_from() -> None:
    assert profile_names()
    for name in profile_names():
        profile = load_profile(name, startup_s=7.0)
        assert profile.startup_s == 7.0
        assert len(profile.provenance) > 100


def test_equal_times_run_in_order_of_scheduling() -> None:
    events, seen = Events(), []
    random = Random(1)
    for name in range(20):
        events.at(float(random.randint(0, 2)), lambda now_s, n: seen.append((now_s, n)), name)
    events.run_until(5.0)
    assert seen == sorted(seen)
