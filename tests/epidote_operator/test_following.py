"""Which spec is followed; and a number of workers that is not its writer's to give."""

from typing import Any

import pytest

from epidote_operator.following import spec_to_follow
from epidote_operator.spec.admission import rule_on
from epidote_operator.spec.service_status import (
    Condition,
    ConditionStatus,
    MultimodalServiceStatus,
)
from epidote_operator.status.news import news
from epidote_operator.testing.service_story import service_manifest

NOTHING = MultimodalServiceStatus()
NOW = "2026-11-21T00:00:00Z"


def scaled(workers: object, owner: str | None = None, **spec: Any) -> dict[str, Any]:
    resource = service_manifest("web", "none", **spec)
    resource["spec"]["pool"]["workers"] = workers
    if owner is not None:
        resource["spec"]["scaling"]["owner"] = owner
    return resource


def test_a_number_that_is_the_operators_is_ignored_and_everything_else_followed() -> None:
    """`kubectl scale`, where no server and no webhook refused it."""
    for owner in (None, "Operator"):
        followed = spec_to_follow(scaled(3, owner), NOTHING)
        assert followed.refusal is None
        assert followed.spec is not None
        assert followed.spec.pool.workers is None
        assert "workers" not in followed.raw["pool"], "the last good spec stays a good one"
        assert followed.scale_limit is not None
        reason, message = followed.scale_limit
        assert reason == "TwoOwners"
        assert message.startswith("pool.workers asks for 3 workers and is ignored")


def test_an_external_owner_is_listened_to() -> None:
    followed = spec_to_follow(scaled(4, "External"), NOTHING)
    assert followed.spec is not None
    assert followed.spec.pool.workers == 4
    assert followed.scale_limit is None
    many = spec_to_follow(scaled(50, "External"), NOTHING).scale_limit
    assert many is not None
    assert many[0] == "TooManyReplicas"


def test_a_bad_number_or_a_bad_owner_is_refused_as_ever() -> None:
    for resource in (scaled("many"), scaled(3, "Somebody"), scaled(3, model={"uri": "ftp://x"})):
        followed = spec_to_follow(resource, NOTHING)
        assert followed.spec is None
        assert followed.refusal is not None
        assert followed.scale_limit is None or "model" not in resource


@pytest.mark.parametrize(
    ("part", "change"), [("pool", {"device": "Cpu"}), ("cluster", {"provider": "KubeRay"})]
)
def test_what_is_fixed_stays_as_the_last_good_spec_has_it(
    part: str, change: dict[str, str]
) -> None:
    """Where neither CEL nor a webhook refused it, workers, head and all would be replaced."""
    resource = service_manifest("web", "none")
    last = resource["spec"]
    serving = MultimodalServiceStatus(last_good_spec=last)
    resource["spec"] = {**last, part: {**last.get(part, {}), **change}}
    followed = spec_to_follow(resource, serving)
    assert followed.raw == last
    assert followed.spec == spec_to_follow({**resource, "spec": last}, NOTHING).spec
    assert followed.refusal is not None
    (problem,) = followed.refusal.problems
    assert problem.path == f"spec.{part}.{next(iter(change))}"
    assert "delete the service and create it again" in problem.wanted
    assert spec_to_follow(resource, NOTHING).refusal is None, "a new service may be so"
    resource["spec"] = {**last, "image": "example.com/worker:2"}
    assert spec_to_follow(resource, serving).refusal is None, "what rolls is followed"


def test_without_the_right_to_rayclusters_nobody_is_promised_one() -> None:
    """A fleet that was made with that right stays as it is, and its service says why."""
    resource = service_manifest("web", "none", cluster={"provider": "KubeRay"})
    for status in (NOTHING, MultimodalServiceStatus(last_good_spec=resource["spec"])):
        followed = spec_to_follow(resource, status, kuberay=False)
        assert followed.spec is None
        assert followed.refusal is not None
        assert str(followed.refusal).startswith(
            "spec.cluster.provider: must be Pods: this operator was installed without "
            "kuberay.enabled, got 'KubeRay'"
        )
    assert spec_to_follow(resource, NOTHING).spec is not None
    told = rule_on("multimodalservices", "web", resource["spec"], kuberay=False).problems
    assert [problem.path for problem in told] == ["spec.cluster.provider"]


def test_two_owners_are_told_once() -> None:
    def limited(status: ConditionStatus, reason: str) -> MultimodalServiceStatus:
        condition = Condition(
            type="ScalingLimited",
            status=status,
            reason=reason,
            message="m",
            last_transition_time=NOW,
        )
        return MultimodalServiceStatus(conditions=(condition,))

    within = limited(ConditionStatus.FALSE, "DesiredWithinRange")
    bound = limited(ConditionStatus.TRUE, "GPUBudget")
    two = limited(ConditionStatus.TRUE, "TwoOwners")
    for before in (NOTHING, within, bound):
        assert [item.reason for item in news(before, two, None)] == ["TwoOwners"]
    assert news(two, two, None) == ()
    assert news(within, bound, None) == (), "its decision is told"
    assert news(two, within, None) == ()
