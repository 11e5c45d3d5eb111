"""What no fleet can keep is said so, with its cause; what only a bound forbids is told apart."""

from dataclasses import replace

import pytest

from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_planner.decision import Constraint, Plan, Reason
from epidote_planner.fakes import PROFILE, PretendCluster, image_traffic, policy, text_traffic
from epidote_planner.policy import Bounds, PlannerPolicy
from epidote_planner.snapshot import ModalityTraffic


def settled(rules: PlannerPolicy, *traffic: ModalityTraffic) -> Plan:
    return PretendCluster(policy=rules).run(60, *traffic)[-1]


def test_ttft_shorter_than_one_prefill_is_said_to_be_out_of_reach() -> None:
    """A prompt of 600 tokens takes 190 ms alone."""
    decided = settled(policy(slo=Slo(ttft_s=0.05, tpot_s=0.05)), text_traffic(5.0))
    told = decided.explanation
    assert told.reason is Reason.SLO_UNREACHABLE
    assert told.binding is Constraint.TTFT
    assert "TTFT 50 ms can't be met by any number of workers" in told.text
    assert "its prefill" in told.text
    assert decided.total < 12  # sized for the half of the prompts that are short enough


def test_images_that_take_too_long_name_their_encode() -> None:
    decided = settled(policy(slo=Slo(ttft_s=0.3, tpot_s=0.05)), image_traffic(5.0))
    assert "one image's encode 160 ms" in decided.explanation.text
    assert decided.explanation.reason is Reason.SLO_UNREACHABLE


def test_tpot_shorter_than_one_step_is_said_to_be_out_of_reach() -> None:
    decided = settled(policy(slo=Slo(ttft_s=3.0, tpot_s=0.01)), text_traffic(5.0))
    told = decided.explanation
    assert told.reason is Reason.SLO_UNREACHABLE
    assert told.binding is Constraint.TPOT
    assert "even for one sequence alone" in told.text


@pytest.mark.parametrize(("ttft_s", "reached"), [(1.2, True), (0.9, True), (0.4, False)])
def test_few_long_prompts_are_what_the_quantile_is_for(ttft_s: float, reached: bool) -> None:
    """One in a hundred prompts has 3000 tokens: 0.93 s."""
    decided = settled(policy(slo=Slo(ttft_s=ttft_s, tpot_s=0.05)), text_traffic(5.0))
    assert (decided.explanation.reason is not Reason.SLO_UNREACHABLE) is reached


def test_budget_binds_beside_an_slo_that_is_out_of_reach() -> None:
    rules = policy(slo=Slo(ttft_s=0.05, tpot_s=0.05), gpu_budget=3)
    told = settled(rules, text_traffic(30.0)).explanation
    assert told.reason is Reason.SLO_UNREACHABLE
    assert told.binding is Constraint.GPU_BUDGET


def test_role_at_its_maximum_is_named_with_what_it_would_take() -> None:
    rules = policy()
    rules = replace(rules, roles={**rules.roles, Role.DECODE: Bounds(least=1, most=1)})
    told = settled(rules, text_traffic(80.0, output=900.0)).explanation
    assert told.reason is Reason.BUDGET_BOUND
    assert told.binding is Constraint.ROLE_MAXIMUM
    assert "Without the roles' maxima" in told.text


def test_profile_that_is_slower_than_believed_counts() -> None:
    fast = settled(policy(slo=Slo(ttft_s=1.0, tpot_s=0.025)), text_traffic(5.0))
    slow = replace(PROFILE, decode=replace(PROFILE.decode, base_s=0.03))
    found = settled(policy(profile=slow, slo=Slo(ttft_s=1.0, tpot_s=0.025)), text_traffic(5.0))
    assert fast.explanation.reason is not Reason.SLO_UNREACHABLE
    assert found.explanation.reason is Reason.SLO_UNREACHABLE
