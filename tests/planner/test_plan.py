"""Decisions by example: demand, its kinds and groups, and what a plan tells of itself."""

from dataclasses import replace

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_planner.decision import MoveExperts, Reason
from epidote_planner.experts import ExpertLoad, ExpertMove
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    snapshot,
    starts,
    text_traffic,
    workers,
)
from epidote_planner.lane import SPLIT_ROLES
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, ModalityGroup, RatioGuard


def test_demand_from_nothing_starts_every_role() -> None:
    decided = plan(snapshot(10.0, (), (image_traffic(10.0),)), policy())
    assert all(decided.target(role) >= 1 for role in SPLIT_ROLES)
    assert starts(decided) == decided.total
    assert decided.explanation.reason is Reason.DEMAND_ROSE


def test_lost_response_cache_is_planned_for_in_the_same_tick() -> None:
    memory = None
    for tick in range(1, 60):
        seen = snapshot(10.0 * tick, workers(9, 9, 3), (image_traffic(20.0),), cache_hits=0.8)
        memory = plan(seen, policy(), memory).memory
    kept = plan(
        snapshot(600.0, workers(2, 2, 1), (image_traffic(20.0),), cache_hits=0.8), policy(), memory
    )
    lost = plan(
        snapshot(600.0, workers(2, 2, 1), (image_traffic(20.0),), cache_hits=0.0), policy(), memory
    )
    assert lost.total > kept.total
    assert lost.explanation.reason is Reason.CACHE_LOST


def test_ratio_guard_raises_the_smaller_side() -> None:
    guarded = policy(
        ratios=(RatioGuard(numerator=Role.DECODE, denominator=Role.PREFILL, least=0.5),)
    )
    decided = plan(snapshot(10.0, (), (image_traffic(40.0),)), guarded)
    assert decided.target(Role.DECODE) >= decided.target(Role.PREFILL) / 2


def test_text_group_keeps_its_workers_while_images_burst() -> None:
    grouped = policy(
        groups=(
            ModalityGroup(name="text", modalities=(Modality.TEXT,)),
            ModalityGroup(name="media", modalities=(Modality.IMAGE, Modality.VIDEO)),
        )
    )
    decided = plan(snapshot(10.0, (), (text_traffic(5.0), image_traffic(20.0))), grouped)
    assert decided.target(Role.ENCODE, "text") == 0
    assert decided.target(Role.PREFILL, "text") >= 1
    assert decided.target(Role.PREFILL, "media") > decided.target(Role.PREFILL, "text")


def test_expert_move_comes_before_workers_and_only_if_it_pays() -> None:
    good = ExpertMove(name="even", num_moved=40, imbalance=1.1, migration_s=2.0)
    skewed = ExpertLoad(imbalance=2.0, expert_time_ratio=0.5, proposal=good)
    seen = replace(snapshot(10.0, workers(2, 2, 1), (image_traffic(20.0),)), experts=skewed)
    decided = plan(seen, policy())
    assert isinstance(decided.actions[0], MoveExperts)
    told = (
        "40 expert slots of each worker move in 2 s: imbalance 2.00→1.10, decode steps 30% shorter"
    )
    assert told in decided.explanation.text
    slow = replace(skewed, proposal=replace(good, imbalance=1.99, migration_s=600.0))
    assert not any(
        isinstance(a, MoveExperts) for a in plan(replace(seen, experts=slow), policy()).actions
    )


def test_skew_of_experts_counts_as_decode_capacity_lost() -> None:
    seen = snapshot(10.0, (), (image_traffic(60.0, output=600.0),))
    skewed = replace(seen, experts=ExpertLoad(imbalance=2.5, expert_time_ratio=0.6))
    assert plan(skewed, policy()).target(Role.DECODE) > plan(seen, policy()).target(Role.DECODE)


def test_missed_slo_adds_workers_that_no_model_asked_for() -> None:
    kept = PretendCluster(policy=policy())
    kept.run(60, image_traffic(20.0))
    missed = PretendCluster(policy=policy())
    missed.run(60, image_traffic(20.0), met=0.9)
    assert len(missed.fleet) > len(kept.fleet)


def test_role_without_traffic_may_go_to_zero_if_allowed() -> None:
    free = policy(
        roles={
            Role.ENCODE: Bounds(least=0),
            Role.PREFILL: Bounds(least=1),
            Role.DECODE: Bounds(least=1),
        }
    )
    cluster = PretendCluster(policy=free, fleet=workers(3, 2, 1))
    cluster.run(100, text_traffic(3.0))
    assert cluster.tick(text_traffic(3.0)).target(Role.ENCODE) == 0


def test_modality_that_fell_silent_gives_its_worker_back() -> None:
    free = policy(roles={**policy().roles, Role.ENCODE: Bounds(least=0)})
    cluster = PretendCluster(policy=free, fleet=workers(3, 2, 1))
    cluster.run(10, text_traffic(3.0), image_traffic(1.0))
    recent = cluster.run(60, text_traffic(3.0))[-1]  # 600 s of 900 s of silence
    assert recent.target(Role.ENCODE) == 1
    assert cluster.run(300, text_traffic(3.0))[-1].target(Role.ENCODE) == 0


def test_every_plan_tells_its_steps_and_its_reason_in_words() -> None:
    decided = plan(snapshot(10.0, workers(1, 1, 1), (image_traffic(10.0),)), policy())
    assert [step.name for step in decided.trace] == [
        "demand",
        "capacity",
        "load",
        "sizing",
        "budget",
        "damping",
        "assignment",
    ]
    assert decided.explanation.reason.value in decided.explanation.text
    assert decided.explanation.counterfactual in decided.explanation.text
