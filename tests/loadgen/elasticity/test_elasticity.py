"""GPU time, recovery and the lower bound follow from what was seen, to the second."""

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_loadgen.elasticity.gpu_time import gpu_seconds
from epidote_loadgen.elasticity.least_work import least_gpu_seconds
from epidote_loadgen.elasticity.recovery import recoveries, steps_of
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_planner.performance import DecodeCost, EncodeCost, PerformanceProfile, PrefillCost

SLO = SloTable(classes=(SloClass(name="all", objectives=(Objective(ttft_s=1.0, ratio=0.9),)),))
STEPS = {
    "arrivals": {"rate": {"steps": [{"at_s": 0, "rps": 1}, {"at_s": 10, "rps": 5}]}, "start_s": 0}
}


def sample(at_s: float, **workers: int) -> dict[str, Any]:
    return {"at_s": at_s, "workers": {role: {"routable": n} for role, n in workers.items()}}


def request(at_s: float, ttft_s: float, **more: Any) -> RequestRecord:
    return RequestRecord(
        index=0,
        class_name="c",
        status=RequestStatus.OK,
        intended_send_s=at_s,
        end_s=at_s + ttft_s,
        content_offsets_s=array("f", [ttft_s]),
        **{"attributes": RequestAttributes(), "output_tokens": 1} | more,
    )


def test_gpu_seconds_are_the_fleets_size_over_time() -> None:
    samples = [sample(1.0, decode=2), sample(11.0, decode=2, encode=2), sample(16.0, decode=1)]
    assert gpu_seconds(samples, duration_s=20.0) == 2 * 11 + 4 * 5 + 1 * 4
    assert gpu_seconds(samples, duration_s=20.0, gpus_per_worker=8) == 8 * 46
    assert gpu_seconds([], duration_s=20.0) is None


def test_a_worker_that_starts_or_drains_holds_its_gpu_and_a_failed_one_does_not() -> None:
    workers = {"decode": {"starting": 1, "draining": 1, "routable": 1, "failed": 1}}
    assert gpu_seconds([{"at_s": 0.0, "workers": workers}], duration_s=10.0) == 30.0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_gpu_seconds_lie_between_the_smallest_and_the_largest_fleet(sizes: list[int]) -> None:
    samples = [sample(float(i), decode=size) for i, size in enumerate(sizes)]
    used = gpu_seconds(samples, duration_s=10.0)
    assert used is not None
    assert 10 * min(sizes) <= used <= 10 * max(sizes)


def test_steps_are_found_in_one_stream_and_in_many() -> None:
    [step] = steps_of(STEPS)
    assert (step.at_s, step.from_rps, step.to_rps) == (10.0, 1.0, 5.0)
    stream = dict(STEPS["arrivals"]) | {"start_s": 100.0}
    found = steps_of({"arrivals": {"streams": [stream, dict(STEPS["arrivals"])]}})
    assert [step.at_s for step in found] == [10.0, 110.0]
    assert steps_of({"arrivals": {"rate": {"constant_rps": 4}}}) == []
    assert steps_of({}) == []


@pytest.mark.parametrize(
    ("slow_until_s", "after_s"), [(0.0, 0.0), (12.0, 5.0), (18.0, 10.0), (1000.0, None)]
)
def test_recovery_is_the_end_of_the_last_bucket_that_missed(
    slow_until_s: float, after_s: float | None
) -> None:
    times = [0.5 * i for i in range(80)]
    records = [request(t, 5.0 if 10.0 <= t < slow_until_s else 0.1) for t in times]
    [found] = recoveries(records, SLO, steps_of(STEPS))
    assert found.after_s == after_s


def test_a_step_down_needs_no_recovery() -> None:
    down = {"arrivals": {"rate": {"steps": [{"at_s": 0, "rps": 5}, {"at_s": 10, "rps": 1}]}}}
    assert recoveries([request(15.0, 9.0)], SLO, steps_of(down)) == []


PROFILE = PerformanceProfile(
    name="p",
    provenance="made up",
    encode=EncodeCost(per_image_s=1.0),
    prefill=PrefillCost(per_token_s=0.01),
    decode=DecodeCost(base_s=0.0, per_sequence_s=0.001),
)


def test_the_least_work_counts_good_requests_without_what_caches_saved() -> None:
    good = request(0.0, 0.1, prompt_tokens=100)
    half = request(0.0, 0.1, prompt_tokens=100, cached_tokens=50)
    late = request(0.0, 9.0, prompt_tokens=100)
    answered_by_cache = request(0.0, 0.1, prompt_tokens=100, cache="HIT")
    assert least_gpu_seconds([good], SLO, PROFILE) == pytest.approx(1.0)
    assert least_gpu_seconds([half], SLO, PROFILE) == pytest.approx(0.5)
    assert least_gpu_seconds([late, answered_by_cache], SLO, PROFILE) == 0.0


def test_a_picture_sent_twice_is_encoded_once() -> None:
    look = RequestAttributes(
        modality=Modality.IMAGE, num_images=1, image_ids=("cat",), prompt_tokens=20
    )
    twice = [request(0.0, 0.1, prompt_tokens=50, attributes=look) for _ in range(2)]
    assert least_gpu_seconds(twice[:1], SLO, PROFILE) == pytest.approx(1.5)
    assert least_gpu_seconds(twice, SLO, PROFILE) == pytest.approx(2.0)
