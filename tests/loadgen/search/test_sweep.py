"""A short sweep against a server of known capacity (the exact one is loadgen/bench/knee.py)."""

from dataclasses import replace

import pytest

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.process import mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.runner.running import Interrupt
from epidote_loadgen.search.sweep import Probe, ProbeEnd, SweepSettings, sweep
from epidote_loadgen.slo import Objective, SloClass, SloTable


def plan(url: str, *, ratio: float = 0.9) -> RunPlan:
    objective = Objective(ttft_s=0.25, ratio=ratio)
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(1.0), duration_s=1.0)
    return RunPlan(
        target=Target(url=url),
        arrivals=OpenLoop(streams=(stream,)),
        workload=SameRequest(),
        slo=SloTable(classes=(SloClass(name="all", objectives=(objective,)),)),
        limits=Limits(max_lateness_s=60.0),
    )


@pytest.mark.slow
def test_a_rate_over_the_capacity_never_holds() -> None:
    settings = SweepSettings(
        start_rps=240.0,  # three times what the server can do
        min_rps=30.0,
        probe_s=2.0,
        min_requests=30,
        extend=1.0,
        tolerance=0.9,
        cool_down_s=0.1,
        max_cool_down_s=10.0,
        max_probes=3,
    )
    probes: list[Probe] = []
    law = LatencyLaw(ttft_s=0.01, itl_s=0.0, capacity_rps=80.0)
    with mock_process(MockSettings(law=law, num_tokens=1)) as url:
        found = sweep(plan(url), settings, on_probe=probes.append)
    assert (probes[0].rps, probes[0].held, probes[0].end) == (240.0, False, ProbeEnd.SATURATED)
    # On a slow machine less may hold than the 60 that hold here, but never the 120 and the 240:
    # in two seconds the queue of a rate a sixth over the capacity passes the limit for a tenth.
    assert found.max_goodput_rps <= 80.0 * 7 / 6
    assert found.high_rps <= 120.0
    assert probes == list(found.probes)


@pytest.mark.slow
def test_a_probe_that_is_lost_is_stopped_long_before_its_time() -> None:
    """Three of four requests miss: 32 misses, with which it is lost, come in the first second."""
    settings = SweepSettings(start_rps=240.0, probe_s=60.0, max_probes=1)
    law = LatencyLaw(ttft_s=0.01, itl_s=0.0, capacity_rps=80.0)
    with mock_process(MockSettings(law=law, num_tokens=1)) as url:
        [probe] = sweep(plan(url, ratio=0.999), settings).probes
    assert (probe.held, probe.end) == (False, ProbeEnd.SATURATED)
    assert probe.num_requests < 240 * 60 / 2  # a slow machine may notice it later


def test_an_interrupted_sweep_tells_what_it_knows() -> None:
    interrupt = Interrupt()
    interrupt.stop.set()
    with mock_process(MockSettings()) as url:
        found = sweep(plan(url), SweepSettings(start_rps=20.0), interrupt=interrupt)
    assert not found.is_decided
    assert found.is_interrupted
    assert found.reason == "interrupted"
    assert found.max_goodput_rps == 0.0


def test_a_sweep_needs_a_promise() -> None:
    asked = replace(plan("http://127.0.0.1:9"), slo=SloTable(classes=()))
    with pytest.raises(ValueError, match="at least one objective"):
        sweep(asked, SweepSettings(start_rps=1.0))
