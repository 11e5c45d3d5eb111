"""Which changes of a status are told as Events, and as which kind."""

import pytest

from epidote_operator.spec.service_status import (
    Condition,
    ConditionStatus,
    DecisionStatus,
    MultimodalServiceStatus,
)
from epidote_operator.status.news import News, news

NOW = "2026-11-21T00:00:00Z"
YES, NO = ConditionStatus.TRUE, ConditionStatus.FALSE
Told = tuple[str, ConditionStatus, str, str]

SERVES: Told = ("Ready", YES, "EveryStageServed", "3 workers serve every stage")
BARE: Told = ("Ready", NO, "NoRoutableWorker", "no routable worker serves decode")
BARER: Told = ("Ready", NO, "NoRoutableWorker", "no routable worker serves decode, prefill")
INVALID: Told = ("Ready", NO, "InvalidSpec", "spec.model.uri: must ..., got 'x'")
TAKEN: Told = ("Ready", NO, "InvalidSpec", "spec.slo: must ..., got 1")
ABLE: Told = ("AbleToScale", YES, "ReadyForNewScale", "")
FAILED: Told = ("AbleToScale", NO, "FailedScale", "pods is forbidden")
STUCK: Told = ("Progressing", NO, "ProgressDeadlineExceeded", "no further")
COMPLETE: Told = ("Progressing", NO, "FleetComplete", "3 workers")
STALE: Told = ("ScalingActive", NO, "FailedGetMetricsStale", "no recent metrics")
OFF: Told = ("ScalingActive", NO, "ScalingDisabled", "off")


def status(*conditions: Told) -> MultimodalServiceStatus:
    return MultimodalServiceStatus(
        conditions=tuple(
            Condition(
                type=kind, status=value, reason=reason, message=text, last_transition_time=NOW
            )
            for kind, value, reason, text in conditions
        )
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, BARE, None),
        (BARE, SERVES, ("Normal", "EveryStageServed")),
        (SERVES, SERVES, None),
        (SERVES, BARE, ("Warning", "NoRoutableWorker")),
        (BARE, BARER, None),
        (None, INVALID, ("Warning", "InvalidSpec")),
        (INVALID, INVALID, None),
        (INVALID, TAKEN, ("Warning", "InvalidSpec")),
        (ABLE, FAILED, ("Warning", "FailedScale")),
        (FAILED, ABLE, None),
        (COMPLETE, STUCK, ("Warning", "ProgressDeadlineExceeded")),
        (STUCK, COMPLETE, None),
        (None, STALE, None),
        (OFF, STALE, ("Warning", "FailedGetMetricsStale")),
        (STALE, OFF, None),
    ],
)
def test_changed_conditions(before: Told | None, after: Told, told: tuple[str, str] | None) -> None:
    found = news(status(*([before] if before else [])), status(after), None)
    assert [(item.kind, item.reason) for item in found] == ([told] if told else [])


def test_a_service_that_comes_up_is_no_bad_news_until_it_has_served() -> None:
    """First no gateway answers, then one knows no workers; a bad spec may have been before."""
    start: Told = ("Ready", NO, "GatewayUnreachable", "there is no gateway yet")
    invalid = status(INVALID)
    for before, after in ((start, BARE), (BARE, start)):
        assert news(status(before), status(after), None) == ()
    assert news(invalid, status(start), None) == ()
    serving = invalid.model_copy(update={"revision": "abc"})
    assert [item.reason for item in news(serving, status(BARE), None)] == ["NoRoutableWorker"]


def test_a_decision_warns_where_the_promise_cannot_be_kept() -> None:
    def told(reason: str) -> tuple[News, ...]:
        decision = DecisionStatus(at=NOW, reason=reason, binding="TTFT", text=f"{reason}: keep")
        return news(status(), status(), decision)

    assert told("DemandRose") == (
        News(kind="Normal", reason="DemandRose", message="DemandRose: keep"),
    )
    assert told("BudgetBound")[0].kind == "Warning"


def test_a_missing_policy_is_told_once_and_one_on_its_way_is_not() -> None:
    missing: Told = ("CachePolicyInForce", NO, "PolicyNotFound", "there is no CachePolicy 'x'")
    applying: Told = ("CachePolicyInForce", NO, "Applying", "1 of 2 gateways follow it")
    (told,) = news(status(SERVES), status(SERVES, missing), None)
    assert (told.kind, told.reason) == ("Warning", "PolicyNotFound")
    assert news(status(SERVES, missing), status(SERVES, missing), None) == ()
    assert news(status(SERVES, missing), status(SERVES, applying), None) == ()
