"""The staircase walk against every split, and the predictions' monotonicity."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_planner.capacity import Backlog, GroupModel
from epidote_planner.demand import ModalityDemand
from epidote_planner.distribution import Distribution
from epidote_planner.fakes import PROFILE, policy
from epidote_planner.policy import Bounds
from epidote_planner.queueing import NO_WAIT, both_beyond, wait_tail
from epidote_planner.sizing import SplitBounds, size
from epidote_planner.snapshot import CacheSignals
from epidote_planner.workload import request_classes


def model(
    rps: float, images: float = 1.0, *, text_rps: float = 0.0, ttft_s: float = 2.0
) -> GroupModel:
    demand = (
        ModalityDemand(
            modality=Modality.IMAGE,
            rps=rps,
            input_tokens=Distribution(mean=200, p50=150, p90=400, p99=900),
            output_tokens=Distribution.constant(100),
            images=Distribution.constant(images),
            image_tokens=Distribution.constant(500 * images),
        ),
        ModalityDemand(
            modality=Modality.TEXT,
            rps=text_rps,
            input_tokens=Distribution(mean=600, p50=400, p90=1500, p99=3000),
            output_tokens=Distribution.constant(50),
            images=Distribution(),
            image_tokens=Distribution(),
        ),
    )
    rules = policy(slo=Slo(ttft_s=ttft_s, tpot_s=0.05))
    return GroupModel(classes=request_classes(demand, rules, CacheSignals()), profile=PROFILE)


@given(
    st.floats(0.2, 25.0),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.floats(0.0, 10.0),
    st.floats(0.9, 4.0),
)
@settings(max_examples=25)
def test_split_costs_as_little_as_the_best_of_all_splits(
    rps: float, images: float, text_rps: float, ttft_s: float
) -> None:
    predicted = model(rps, images, text_rps=text_rps, ttft_s=ttft_s)
    found = size(predicted, SplitBounds())
    fitting = [
        encode + prefill
        for encode, prefill in product(range(1, 31), range(1, 31))
        if predicted.ttft_fits(encode, prefill)
    ]
    if fitting:
        assert found.encode + found.prefill == min(fitting)
        assert predicted.ttft_fits(found.encode, found.prefill)
    decoders = [count for count in range(1, 41) if predicted.decode_fits(count)]
    if decoders:
        assert found.decode == min(decoders)


@given(st.floats(0.1, 30.0), st.integers(1, 30), st.integers(1, 30))
def test_more_workers_never_do_worse(rps: float, encode: int, prefill: int) -> None:
    predicted = model(rps)
    missed = predicted.ttft_miss_ratio(encode, prefill)
    assert predicted.ttft_miss_ratio(encode + 1, prefill) <= missed + 1e-12
    assert predicted.ttft_miss_ratio(encode, prefill + 1) <= missed + 1e-12
    assert predicted.tpot_s(prefill + 1) <= predicted.tpot_s(prefill)


def test_unreachable_ttft_keeps_stable_queues_instead_of_growing_without_end() -> None:
    found = size(model(10.0, ttft_s=0.05), SplitBounds())
    assert found.encode > model(10.0).encode_load
    assert found.prefill > model(10.0).prefill_load
    assert found.total < 20


def test_bounds_are_kept_where_the_slo_asks_for_more() -> None:
    most_two = Bounds(least=1, most=2)
    found = size(model(50.0), SplitBounds(encode=most_two, prefill=most_two, decode=most_two))
    assert max(found.encode, found.prefill, found.decode) <= 2


def test_more_encoders_are_faster_for_several_images() -> None:
    predicted = model(0.1, images=4.0)
    image = next(item for item in predicted.classes if item.images > 0)
    assert predicted.encode_s(image, 4) == pytest.approx(predicted.encode_s(image, 1) / 4)


def test_sequences_already_in_decode_count_even_without_forecast() -> None:
    crowded = GroupModel(
        classes=model(1.0).classes, profile=PROFILE, backlog=Backlog(decode_sequences=1000.0)
    )
    assert size(crowded, SplitBounds()).decode > size(model(1.0), SplitBounds()).decode


def test_kv_memory_binds_where_contexts_are_long() -> None:
    classes = model(0.5).classes
    long = tuple(
        type(item)(
            **{
                **{name: getattr(item, name) for name in item.__dataclass_fields__},
                "context_tokens": 60_000.0,
            }
        )
        for item in classes
    )
    predicted = GroupModel(classes=long, profile=PROFILE)
    assert predicted.sequences_per_decoder < 3


@given(st.integers(1, 200), st.floats(0.01, 0.99), st.floats(0.01, 5.0), st.floats(0.0, 20.0))
def test_wait_shrinks_with_time_and_with_workers(
    servers: int, utilization: float, service_s: float, seconds: float
) -> None:
    load = servers * utilization
    few = wait_tail(servers, load=load, service_s=service_s)
    many = wait_tail(servers + 1, load=load, service_s=service_s)
    assert many.beyond(seconds) <= few.beyond(seconds) <= few.beyond(0.0) <= 1.0
    assert both_beyond(few, NO_WAIT, seconds) == pytest.approx(few.beyond(seconds), abs=1e-9)


def test_single_worker_wait_matches_the_exact_queue() -> None:
    """M/M/1: P(wait > t) = rho * exp(-(1 - rho) * t / s)."""
    tail = wait_tail(1, load=0.8, service_s=0.5)
    assert tail.probability == pytest.approx(0.8)
    assert tail.rate == pytest.approx(0.2 / 0.5)
