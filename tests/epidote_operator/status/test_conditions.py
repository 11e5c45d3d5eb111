"""Conditions of a service: none of them tells of a fleet that is not there any more."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.status.conditions import Facts, conditions
from epidote_operator.status.fleet import Fleet, FleetWorker, Outcome
from epidote_operator.status.news import news
from epidote_planner import plan
from epidote_planner.fakes import image_traffic, policy, snapshot, workers
from epidote_planner.lane import Lane
from epidote_planner.policy import Bounds
from epidote_planner.snapshot import Attainment

LANES = tuple(Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE))
ALL = Fleet(
    at_s=0.0,
    workers=tuple(
        FleetWorker(name=str(lane), lane=lane, state=WorkerState.ROUTABLE, since_s=0.0)
        for lane in LANES
    ),
)
GONE = Fleet(at_s=0.0, is_known=False, message="no gateway answers")
WELL = Attainment(measured_at_s=0.0, num_requests=40, ttft_ratio=1.0, tpot_ratio=1.0)
LATE = Attainment(measured_at_s=0.0, num_requests=40, ttft_ratio=0.2, tpot_ratio=1.0)


def slo_met(fleet: Fleet, attainment: Attainment | None) -> tuple[str, str]:
    facts = Facts(
        fleet=fleet,
        lanes=LANES,
        plan=None,
        outcome=Outcome(),
        mode=ScalingMode.OFF,
        attainment=attainment,
        target_ratio=0.99,
    )
    found = {c.type: c for c in conditions(facts, (), now_s=0.0, generation=1)}["SloMet"]
    return found.status.value, found.reason


def test_the_promise_is_kept_while_somebody_keeps_it() -> None:
    assert slo_met(ALL, WELL) == ("True", "EveryTargetMet")
    assert slo_met(ALL, LATE) == ("False", "TTFTMissed")
    assert slo_met(ALL, None) == ("Unknown", "NoRequests")


def test_a_promise_that_nobody_serves_is_not_kept_by_the_requests_of_before() -> None:
    assert slo_met(GONE, WELL) == ("Unknown", "NotServing")
    without_prefill = Fleet(at_s=0.0, workers=(ALL.workers[0], ALL.workers[2]))
    assert slo_met(without_prefill, WELL) == ("Unknown", "NotServing")
    assert slo_met(without_prefill, LATE) == ("False", "TTFTMissed")


def test_a_size_that_another_gives_is_neither_stabilized_nor_limited_by_the_pool() -> None:
    """`scaling.owner: External`: its number is both bounds of the pool."""
    given = policy(pool=Bounds(least=6, most=6))
    seen = snapshot(10.0, workers(2, 2, 2), (image_traffic(0.01),))
    facts = Facts(
        fleet=ALL,
        lanes=LANES,
        plan=plan(seen, given),
        outcome=Outcome(),
        mode=ScalingMode.AUTO,
        attainment=None,
        target_ratio=0.99,
        has_given_size=given.has_given_size,
    )
    found = {c.type: c.reason for c in conditions(facts, (), now_s=0.0, generation=1)}
    assert found["AbleToScale"] == "ReadyForNewScale"
    assert found["ScalingLimited"] == "DesiredWithinRange"


def test_a_worker_that_gets_requests_serves_though_its_probe_lags_behind() -> None:
    """It has just taken over from one that stood in, and was probed some seconds ago."""
    *others, last = ALL.workers
    fleet = replace(ALL, workers=(*others, replace(last, is_ready=False)))
    facts = Facts(
        fleet=fleet,
        lanes=LANES,
        plan=None,
        outcome=Outcome(),
        mode=ScalingMode.OFF,
        attainment=None,
        target_ratio=0.99,
    )
    found = {c.type: c for c in conditions(facts, (), now_s=0.0, generation=1)}["Ready"]
    assert (found.status.value, found.reason) == ("True", "EveryStageServed")
    assert "readiness probes of decode don't say so yet" in found.message


def test_a_fleet_without_a_head_says_why_and_warns_once() -> None:
    words = "the head web-head ends whenever it starts: port in use"
    facts = Facts(
        fleet=GONE,
        lanes=LANES,
        plan=None,
        outcome=Outcome(),
        mode=ScalingMode.OFF,
        attainment=None,
        target_ratio=0.99,
    )
    before = conditions(facts, (), now_s=0.0, generation=1)
    after = conditions(replace(facts, head_trouble=words), before, now_s=1.0, generation=1)
    for kind in ("Ready", "Progressing"):
        (found,) = (condition for condition in after if condition.type == kind)
        assert (found.status.value, found.reason) == ("False", "HeadNotReady")
        assert words in found.message
    known, now = (MultimodalServiceStatus(conditions=given) for given in (before, after))
    assert [item.reason for item in news(known, now, None)] == ["HeadNotReady"]
    assert news(now, now, None) == ()
