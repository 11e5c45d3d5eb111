"""The mock server's law: what it promises can be computed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.spacing import Poisson, send_times
from epidote_loadgen.mock_server.faults import Fault, FaultMix, parse_fault
from epidote_loadgen.mock_server.law import LatencyLaw, Stall, Station, true_attainment

STALLED = LatencyLaw(ttft_s=0.1, itl_s=0.01, stalls=(Stall(10.0, 5.0), Stall(20.0, 1.0)))


@given(st.floats(0.0, 100.0))
def test_the_wall_clock_and_the_moving_clock_are_inverse_outside_stalls(at_s: float) -> None:
    in_stall = any(s.at_s <= at_s < s.at_s + s.duration_s for s in STALLED.stalls)
    if not in_stall:
        assert STALLED.wall(STALLED.moving(at_s)) == pytest.approx(at_s, abs=1e-9)


@given(st.floats(0.0, 40.0), st.integers(1, 20))
def test_nothing_is_sent_within_a_stall_or_before_it_came(arrival_s: float, tokens: int) -> None:
    times = Station(STALLED).serve(arrival_s, key="a", num_tokens=tokens)
    assert len(times) == tokens
    assert times == sorted(times)
    assert times[0] >= arrival_s
    for at_s in times:
        assert not any(s.at_s <= at_s < s.at_s + s.duration_s - 1e-9 for s in STALLED.stalls)


def test_a_stall_delays_what_comes_within_it_to_its_end() -> None:
    station = Station(STALLED)
    assert station.serve(9.0, key="a", num_tokens=1) == [pytest.approx(9.1)]
    assert station.serve(9.95, key="b", num_tokens=1) == [pytest.approx(15.05)]
    assert station.serve(12.0, key="c", num_tokens=1) == [pytest.approx(15.1)]


def test_a_capacity_queues_first_come_first_served() -> None:
    station = Station(LatencyLaw(ttft_s=0.0, capacity_rps=10.0))
    times = [station.serve(0.0, key=str(i), num_tokens=1)[0] for i in range(5)]
    assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_waiting_is_that_of_a_queue_with_one_server() -> None:
    """Mean wait of M/D/1 (Pollaczek-Khinchine): load / (2 (1 - load)) service times."""
    law, rate = LatencyLaw(ttft_s=0.0, capacity_rps=100.0), 80.0
    station, waits = Station(law), []
    for index, at_s in enumerate(
        send_times(Poisson(), constant(rate), seed=5, num_requests=100_000)
    ):
        waits.append(station.serve(at_s, key=str(index), num_tokens=1)[0] - at_s - 0.01)
    assert sum(waits) / len(waits) == pytest.approx(0.8 / (2 * 0.2) / 100.0, rel=0.05)


def test_jitter_leaves_the_mean_and_depends_on_the_key_alone() -> None:
    station = Station(LatencyLaw(ttft_s=1.0, jitter=0.5))
    first = [station.serve(0.0, key=str(i), num_tokens=1)[0] for i in range(5000)]
    assert sum(first) / 5000 == pytest.approx(1.0, rel=0.05)
    assert station.serve(0.0, key="7", num_tokens=1)[0] == first[7]


def test_images_take_their_time() -> None:
    station = Station(LatencyLaw(ttft_s=0.1, image_s=0.2))
    assert station.serve(0.0, key="a", num_tokens=1, num_images=3) == [pytest.approx(0.7)]


def test_the_truth_of_a_stall_is_the_share_that_did_not_wait_too_long() -> None:
    law = LatencyLaw(ttft_s=0.0, stalls=(Stall(10.0, 5.0),))
    sends = [(i / 100, str(i)) for i in range(3000)]
    assert true_attainment(law, sends, ttft_s=1.0) == pytest.approx(1.0 - 4.0 / 30.0, abs=0.001)
    assert true_attainment(law, [], ttft_s=1.0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttft_s": -1.0},
        {"capacity_rps": 0.0},
        {"stalls": (Stall(5.0, 2.0), Stall(6.0, 1.0))},
        {"stalls": (Stall(5.0, 0.0),)},
    ],
)
def test_impossible_laws_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        LatencyLaw(**wrong)  # type: ignore[arg-type]


def test_faults_come_in_their_shares_and_depend_on_the_key() -> None:
    mix = FaultMix({Fault.RESET: 0.1, Fault.HANG: 0.05}, seed=3)
    picked = [mix.pick(str(i)) for i in range(10_000)]
    assert picked.count(Fault.RESET) / 10_000 == pytest.approx(0.1, abs=0.01)
    assert picked.count(Fault.HANG) / 10_000 == pytest.approx(0.05, abs=0.01)
    assert [mix.pick(str(i)) for i in range(100)] == picked[:100]


def test_faults_are_read_from_the_command_line() -> None:
    assert parse_fault("reset=0.25") == (Fault.RESET, 0.25)
    assert parse_fault("hang") == (Fault.HANG, 1.0)
    for wrong in ("explode", "reset=often"):
        with pytest.raises(ValueError, match="http-500, http-429"):
            parse_fault(wrong)
    with pytest.raises(ValueError, match="add up to at most 1"):
        FaultMix({Fault.RESET: 0.6, Fault.HANG: 0.6})


def test_no_capacity_is_no_queue() -> None:
    assert math.isinf(LatencyLaw().capacity_rps)
    station = Station(LatencyLaw(ttft_s=0.05))
    assert {station.serve(1.0, key=str(i), num_tokens=1)[0] for i in range(9)} == {1.05}
