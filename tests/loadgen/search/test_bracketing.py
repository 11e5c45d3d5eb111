"""The search for a rate: it converges, gives up in the right place, and stops lost probes."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import constant, ramp
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.arrivals.spacing import Even
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.plan import RunPlan, Target
from epidote_loadgen.records import Progress, RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.search.bracketing import RateSearch
from epidote_loadgen.search.probe_plan import probe_plan
from epidote_loadgen.search.saturation import SaturationWatch
from epidote_loadgen.slo import Objective, SloClass, SloTable

SLO = SloTable(classes=(SloClass(name="all", objectives=(Objective(ttft_s=1.0, ratio=0.9),)),))


@given(knee=st.floats(0.5, 5000.0), start=st.floats(0.5, 5000.0), tolerance=st.floats(0.01, 0.5))
def test_the_bracket_closes_around_the_knee(knee: float, start: float, tolerance: float) -> None:
    search = RateSearch(start_rps=start, tolerance=tolerance)
    num_probes = 0
    while (rps := search.next_rps()) is not None:
        num_probes += 1
        assert num_probes < 60
        search.tell(rps, held=rps <= knee)
    assert search.low_rps <= knee < search.high_rps <= search.low_rps * (1 + tolerance) * (1 + 1e-9)


def test_a_service_without_a_knee_is_left_at_the_highest_rate() -> None:
    search = RateSearch(start_rps=3.0, max_rps=50.0)
    tried = []
    while (rps := search.next_rps()) is not None:
        tried.append(rps)
        search.tell(rps, held=True)
    assert tried == [3.0, 6.0, 12.0, 24.0, 48.0, 50.0]
    assert search.low_rps == 50.0


def test_a_service_that_never_holds_is_left_at_the_lowest_rate() -> None:
    search = RateSearch(start_rps=8.0, min_rps=1.0)
    tried = []
    while (rps := search.next_rps()) is not None:
        tried.append(rps)
        search.tell(rps, held=False)
    assert tried == [8.0, 4.0, 2.0, 1.0]
    assert search.low_rps == 0.0


def test_a_higher_rate_that_holds_overrules_an_earlier_failure() -> None:
    search = RateSearch(start_rps=8.0)
    search.tell(8.0, held=False)
    search.tell(9.0, held=True)
    assert search.low_rps == 9.0
    assert search.next_rps() == 18.0


@pytest.mark.parametrize(
    "wrong",
    [{"start_rps": 0.0}, {"start_rps": 5.0, "max_rps": 1.0}, {"start_rps": 5.0, "tolerance": 0.0}],
)
def test_impossible_searches_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rates|tolerance"):
        RateSearch(**wrong)


def progress(num_slow: int, num_quick: int) -> Progress:
    records = tuple(
        RequestRecord(
            index=i,
            class_name="any",
            attributes=RequestAttributes(),
            status=RequestStatus.OK,
            intended_send_s=0.0,
            end_s=9.0,
            content_offsets_s=array("f", [5.0 if i < num_slow else 0.1]),
        )
        for i in range(num_slow + num_quick)
    )
    return Progress(
        at_s=1.0,
        planned_duration_s=None,
        asked_rps=0.0,
        sent_rps=0.0,
        finished_rps=0.0,
        num_sent=0,
        num_in_flight=0,
        num_waiting=0,
        recent=records,
        cpu_utilization=0.0,
        loop_lag_s=0.0,
    )


def test_a_probe_is_lost_once_misses_outnumber_what_the_promise_allows() -> None:
    watch = SaturationWatch(SLO, num_planned=1000)  # a tenth of which may miss
    assert not watch.add(progress(90, 500))
    assert not watch.add(progress(90, 0))
    assert watch.add(progress(90, 0))


def plan(arrivals: OpenLoop | ClosedLoop) -> RunPlan:
    return RunPlan(
        target=Target(url="http://h"), arrivals=arrivals, workload=SameRequest(), slo=SLO
    )


def test_a_probe_keeps_the_plans_mix_and_spacing() -> None:
    streams = (
        ArrivalStream(
            weights={"text": 3.0, "image": 1.0},
            rate=constant(30.0),
            spacing=Even(),
            duration_s=10.0,
        ),
        ArrivalStream(weights={"video": 1.0}, rate=ramp(0.0, 20.0, over_s=10.0), duration_s=10.0),
    )
    probe = probe_plan(plan(OpenLoop(streams=streams)), rps=8.0, duration_s=5.0, seed=3)
    assert isinstance(probe.arrivals, OpenLoop)
    (stream,) = probe.arrivals.streams
    assert stream.weights == pytest.approx({"text": 225.0, "image": 75.0, "video": 100.0})
    assert stream.spacing == Even()
    assert len(list(probe.arrivals.slots())) == 40
    assert probe.seed == 3


def test_a_closed_loop_is_probed_with_its_classes() -> None:
    loop = ClosedLoop(weights={"a": 1.0, "b": 3.0}, num_users=4, duration_s=1.0)
    probe = probe_plan(plan(loop), rps=8.0, duration_s=5.0, seed=3)
    assert isinstance(probe.arrivals, OpenLoop)
    assert probe.arrivals.streams[0].weights == {"a": 1.0, "b": 3.0}
