"""Every stage of a model is served by somebody, whatever minima a spec names."""

from typing import Any

import pytest

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.parsing import parse_service
from epidote_operator.spec.planner_policy import planner_policy
from epidote_operator.testing.service_story import service_manifest
from epidote_planner import ClusterSnapshot, PlannerMemory, plan
from epidote_planner.fakes import quiet_signals, text_traffic
from epidote_planner.snapshot import WorkerStatus

NONE_LEAST = [{"name": name, "minWorkers": 0} for name in ("Encode", "Prefill", "Decode")]


def spec_with(**parts: Any) -> dict[str, Any]:
    found: dict[str, Any] = service_manifest("web", "none", **parts)["spec"]
    return found


def test_a_minimum_of_zero_counts_as_one() -> None:
    policy = planner_policy(parse_service(spec_with(roles=NONE_LEAST)))
    assert [policy.bounds(lane).least for lane in policy.lanes] == [1, 1, 1]


def test_an_encoder_stays_though_no_picture_has_come_for_hours() -> None:
    """Without one no gateway is ready, and the register would turn somebody else round."""
    policy = planner_policy(parse_service(spec_with(roles=NONE_LEAST)))
    roles = (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.DECODE)
    workers = tuple(WorkerStatus(name=f"w{n}", role=role) for n, role in enumerate(roles))
    memory: PlannerMemory | None = None
    for tick in range(200):
        now_s = 100_000.0 + 60.0 * tick
        snapshot = ClusterSnapshot(
            now_s=now_s,
            workers=workers,
            traffic=(text_traffic(1.0),),
            traffic_at_s=now_s,
            roles=quiet_signals(now_s),
        )
        decided = plan(snapshot, policy, memory)
        memory = decided.memory
        assert decided.targets[policy.lanes[0]] >= 1
    assert snapshot.traffic[0].modality is Modality.TEXT


def test_a_role_that_may_have_nobody_is_refused() -> None:
    roles = [{"name": "Encode", "minWorkers": 0, "maxWorkers": 0}]
    with pytest.raises(InvalidSpec, match=r"spec\.roles\[0\]\.maxWorkers: must be at least 1"):
        parse_service(spec_with(roles=roles))


def test_a_pool_too_small_for_every_stage_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.pool\.maxWorkers: must be at least 3"):
        parse_service(spec_with(roles=NONE_LEAST, pool={"minWorkers": 0, "maxWorkers": 2}))
