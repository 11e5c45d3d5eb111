"""What the operator exports of services that are idle, deleted, or looked after by another one."""

from epidote_core.slo import Slo
from epidote_operator.spec.role_bounds import RoleName
from epidote_operator.spec.service_status import (
    AttainmentStatus,
    Condition,
    ConditionStatus,
    GpuStatus,
    MultimodalServiceStatus,
    RoleStatus,
)
from epidote_operator.telemetry import OperatorMetrics

NOW = "2026-11-21T00:00:00Z"


def status(slo_met: ConditionStatus, budget: int | None = 8) -> MultimodalServiceStatus:
    return MultimodalServiceStatus(
        workers=3,
        roles=tuple(RoleStatus(name=role, desired=1, ready=1) for role in RoleName),
        gpus=GpuStatus(used=3, budget=budget),
        conditions=(
            Condition(type="SloMet", status=slo_met, reason="x", last_transition_time=NOW),
            Condition(type="Later", status=slo_met, reason="x", last_transition_time=NOW),
        ),
        attainment=AttainmentStatus(measured_at=NOW, ttft_percent=99.0, tpot_percent=98.0),
    )


def slo_met(metrics: OperatorMetrics, service: str = "chat") -> float | None:
    labels = {"namespace": "prod", "service": service, "type": "SloMet", "reason": "x"}
    return metrics.registry.get_sample_value("epidote_operator_condition", labels)


def test_an_idle_service_has_neither_met_nor_missed_its_promise() -> None:
    """Exported as 0, it would page somebody every night."""
    metrics = OperatorMetrics()
    metrics.show("prod", "chat", status(ConditionStatus.FALSE))
    assert slo_met(metrics) == 0.0
    metrics.show("prod", "chat", status(ConditionStatus.UNKNOWN))
    assert slo_met(metrics) is None
    metrics.show("prod", "chat", status(ConditionStatus.TRUE))
    assert slo_met(metrics) == 1.0


def test_a_budget_that_is_taken_away_is_no_longer_shown() -> None:
    metrics, labels = OperatorMetrics(), {"namespace": "prod", "service": "chat"}
    metrics.show("prod", "chat", status(ConditionStatus.TRUE))
    assert metrics.registry.get_sample_value("epidote_operator_gpu_budget", labels) == 8.0
    metrics.show("prod", "chat", status(ConditionStatus.TRUE, budget=None))
    assert metrics.registry.get_sample_value("epidote_operator_gpu_budget", labels) is None


def test_nothing_is_left_of_a_service_that_is_gone_and_all_of_the_others() -> None:
    metrics = OperatorMetrics()
    for name in ("chat", "other"):
        metrics.show("prod", name, status(ConditionStatus.TRUE))
        metrics.show_promise("prod", name, Slo(ttft_s=1.0, tpot_s=0.1))

    def series(service: str) -> int:
        return sum(
            sample.labels.get("service") == service
            for family in metrics.registry.collect()
            for sample in family.samples
        )

    before = series("other")
    metrics.forget("prod", "chat")
    assert (series("chat"), series("other")) == (0, before)
    assert slo_met(metrics, "other") == 1.0
    metrics.forget("prod", "chat")


def test_a_condition_is_shown_with_its_present_reason_alone() -> None:
    """Alerts tell a spec that is not followed from a fleet that does not serve by it."""
    metrics = OperatorMetrics()

    def ready(reason: str) -> None:
        condition = Condition(
            type="Ready", status=ConditionStatus.FALSE, reason=reason, last_transition_time=NOW
        )
        metrics.show("prod", "chat", MultimodalServiceStatus(conditions=(condition,)))

    ready("NoRoutableWorker")
    ready("InvalidSpec")
    (family,) = [f for f in metrics.registry.collect() if f.name == "epidote_operator_condition"]
    assert [(s.labels["reason"], s.value) for s in family.samples] == [("InvalidSpec", 0.0)]
