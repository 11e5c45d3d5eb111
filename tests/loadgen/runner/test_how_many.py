"""How many processes a run gets where nobody said."""

import pytest

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import Rate, constant, ramp, steps
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.runner.how_many import how_many
from epidote_loadgen.slo import SloTable


def plan(*rates: Rate, num_processes: int | None = None, limits: Limits | None = None) -> RunPlan:
    streams = tuple(
        ArrivalStream(weights={"chat": 1.0}, rate=rate, duration_s=10.0) for rate in rates
    )
    return RunPlan(
        target=Target(url="http://127.0.0.1:1"),
        arrivals=OpenLoop(streams=streams)
        if streams
        else ClosedLoop(weights={"chat": 1.0}, num_users=5000, num_requests=1),
        workload=SameRequest(),
        slo=SloTable(classes=()),
        limits=limits or Limits(),
        num_processes=num_processes,
    )


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        ((constant(500.0),), 1),
        ((constant(1000.0),), 1),
        ((constant(2000.0),), 2),
        ((constant(700.0), constant(700.0)), 2),
        ((steps([(0.0, 5.0), (5.0, 2500.0), (6.0, 5.0)]),), 3),
        ((ramp(0.0, 8000.0, over_s=80.0),), 1),  # the run ends long before the top
        ((constant(1e6),), 8),  # no more than cores
        ((), 1),  # a closed loop
    ],
)
def test_neighbouring_sends_get_processes_of_their_own_at_high_rates(
    rates: tuple[Rate, ...], wanted: int
) -> None:
    assert how_many(plan(*rates), num_cores=8) == wanted


def test_what_was_asked_for_counts() -> None:
    assert how_many(plan(constant(5000.0), num_processes=1), num_cores=8) == 1
    assert how_many(plan(constant(5.0), num_processes=3), num_cores=2) == 3


def test_every_process_has_a_share_of_each_limit() -> None:
    asked = plan(constant(5000.0), limits=Limits(max_in_flight=2, max_connections=3))
    assert how_many(asked, num_cores=8) == 2
