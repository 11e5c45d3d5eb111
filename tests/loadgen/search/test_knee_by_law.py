"""Is the knee found? The search with real verdicts, the service computed by its law: no waiting.

Against a server that really answers it is loadgen/bench/knee.py.
"""

from array import array

import pytest

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.spacing import Poisson, send_times
from epidote_loadgen.mock_server.law import LatencyLaw, Station, true_attainment
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.search.bracketing import RateSearch
from epidote_loadgen.search.sweep import SweepSettings
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import Outcome, judge

LAW = LatencyLaw(ttft_s=0.02, itl_s=0.002, capacity_rps=100.0)
OBJECTIVE = Objective(ttft_s=0.5, ratio=0.95)
SLO = SloTable(classes=(SloClass(name="all", objectives=(OBJECTIVE,)),))
KNEE_RPS = 96.0  # of this law; the first test says so
DEFAULTS = SweepSettings(start_rps=20.0)


def test_the_knee_lies_where_the_law_says() -> None:
    for rps, holds in ((0.99 * KNEE_RPS, True), (1.01 * KNEE_RPS, False)):
        times = send_times(Poisson(), constant(rps), seed=9, num_requests=200_000)
        share = true_attainment(LAW, ((at_s, "") for at_s in times), ttft_s=0.5)
        assert (share >= OBJECTIVE.ratio) is holds


def probe(rps: float, duration_s: float, seed: int) -> tuple[bool, Outcome]:
    station = Station(LAW)
    records = []
    times = send_times(Poisson(), constant(rps), seed=seed, duration_s=duration_s)
    for index, at_s in enumerate(times):
        [first_s] = station.serve(at_s, key="", num_tokens=1)
        records.append(
            RequestRecord(
                index=index,
                class_name="chat",
                attributes=RequestAttributes(),
                status=RequestStatus.OK,
                intended_send_s=at_s,
                sent_s=at_s,
                end_s=first_s,
                content_offsets_s=array("f", [first_s - at_s]),
            )
        )
    [found] = judge(records, SLO).objectives
    return found.attainment >= OBJECTIVE.ratio, found.outcome


@pytest.mark.parametrize("seed", range(4))
def test_probes_of_the_default_length_find_it_within_five_percent(seed: int) -> None:
    search = RateSearch(start_rps=DEFAULTS.start_rps, tolerance=0.04)
    num_probes = 0
    while (rps := search.next_rps()) is not None:
        duration_s = max(DEFAULTS.probe_s, DEFAULTS.min_requests / rps)
        held, outcome = probe(rps, duration_s, 100 * seed + num_probes)
        num_probes += 1
        if outcome is Outcome.INCONCLUSIVE:
            held, _ = probe(rps, DEFAULTS.extend * duration_s, 100 * seed + num_probes)
            num_probes += 1
        search.tell(rps, held=held)
    assert search.low_rps == pytest.approx(KNEE_RPS, rel=0.05)
    assert num_probes < 15
