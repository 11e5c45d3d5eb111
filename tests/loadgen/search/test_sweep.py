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


def plan(url: str) -> RunPlan:
    objective = Objective(ttft_s=0.25, ratio=0.9)
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(1.0), duration_s=1.0)
    return RunPlan(
        target=Target(url=url),
        arrivals=OpenLoop(streams=(stream,)),
        workload=SameRequest(),
        slo=SloTable(classes=(SloClass(name="all", objectives=(objective,)),)),
        limits=Limits(max_lateness_s=60.0),
    )


@pytest.mark.slow
def test_a_rate_over_the_capacity_never_holds_and_is_stopped_early() -> None:
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
    assert probes[0].num_requests < 0.95 * 480
    # On a slow machine less may hold than the 60 that hold here, but never the 120 and the 240:
    # in two seconds the queue of a rate a sixth over the capacity passes the limit for a tenth.
    assert found.max_goodput_rps <= 80.0 * 7 / 6
    assert found.high_rps <= 120.0
    assert probes == list(found.probes)


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
