"""This file is about one group taking a worker from another while the pool is full."""

from collections.abc import Mapping

from epidote_core.roles import Role
from epidote_planner.capacity import GroupModel
from epidote_planner.groups import LanePressure, preemption
from epidote_planner.lane import Lane
from epidote_planner.models import lane_load
from epidote_planner.policy import PlannerPolicy
from epidote_planner.ratios import hurts
from epidote_planner.snapshot import WorkerStatus

DECODE_PENALTY = 0.05  # ElasticMM's weight of the slow-down of those who stay (its default w)
GAIN_HORIZON = 20.0  # intervals a pre-emption pays back in; ElasticMM: sum of 0.95^k


def preempted(
    needs: Mapping[Lane, int],
    before: Mapping[Lane, int],
    workers: tuple[WorkerStatus, ...],
    models: Mapping[str, GroupModel],
    policy: PlannerPolicy,
) -> Mapping[Lane, int]:
    """Where several groups share a full pool, let a queue take one worker if that pays.

    ElasticMM's reactive rule between groups and stages. One move a tick; sizing does the rest.
    """
    if len(policy.groups) < 2 or sum(needs.values()) < sum(before.values()):
        return needs
    pressures = {
        lane: _lane_pressure(lane, before.get(lane, 0), workers, models[lane.group])
        for lane in needs
    }
    donors = {
        lane: policy.profile.switch_s
        for lane in needs
        if before.get(lane, 0) > policy.bounds(lane).least and before.get(lane, 0) >= needs[lane]
    }
    found = preemption(pressures, donors, penalty=DECODE_PENALTY, horizon=GAIN_HORIZON)
    if found is None or before.get(found[1], 0) >= policy.bounds(found[1]).most:
        return needs
    donor, receiver = found
    if pressures[donor].waiting_work_s * pressures[receiver].workers >= (
        pressures[receiver].waiting_work_s * max(1, pressures[donor].workers - 1)
    ):
        return needs  # the donor's own queue would be the longer one afterwards
    moved = {
        **needs,
        donor: min(needs[donor], before[donor] - 1),
        receiver: max(needs[receiver], before.get(receiver, 0) + 1),
    }
    return needs if hurts(policy.guards, (needs, needs), (moved, moved)) else moved


def _lane_pressure(
    lane: Lane, count: int, workers: tuple[WorkerStatus, ...], model: GroupModel
) -> LanePressure:
    waiting = running = 0
    for worker in workers:
        if worker.group == lane.group and worker.role is lane.role:
            waiting += worker.num_waiting
            running += worker.num_running
    rate = sum(item.rps for item in model.classes)
    if rate <= 0.0:
        return LanePressure(workers=count, num_running=running)
    tokens = (
        model.token_rate / rate
        if lane.role is Role.DECODE
        else sum(item.rps * item.prefill_tokens for item in model.classes) / rate
    )
    arrivals = (
        rate
        if lane.role is not Role.ENCODE
        else sum(item.rps * item.images * item.encode_ratio for item in model.classes)
    )
    each_s = lane_load(model, lane.role) / arrivals if arrivals > 0.0 else 0.0
    return LanePressure(
        workers=count,
        waiting_work_s=waiting * each_s,
        waiting_tokens=waiting * tokens,
        running_work_s=running * each_s,
        running_tokens=running * tokens,
        num_running=running,
    )
