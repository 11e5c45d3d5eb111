"""This file is about building each group's predictions from demand, corrections and queues."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_core.roles import Role
from epidote_planner.capacity import Backlog, GroupModel
from epidote_planner.correction import demand_margin, stage_factors
from epidote_planner.demand import Demand
from epidote_planner.lane import SPLIT_ROLES, Lane
from epidote_planner.policy import Bounds, ModalityGroup, PlannerPolicy
from epidote_planner.sizing import SplitBounds, size
from epidote_planner.snapshot import ClusterSnapshot
from epidote_planner.workload import request_classes


def group_model(
    group: ModalityGroup,
    demand: Demand,
    snapshot: ClusterSnapshot,
    policy: PlannerPolicy,
    corrections: Mapping[str, float],
    margins: Mapping[str, float],
) -> GroupModel:
    """Predictions for one group, at its forecast demand plus head-room and margin."""
    demands = tuple(item for item in demand.modalities if item.modality in group.modalities)
    margin = demand_margin(margins)
    factor = 1.0 + policy.capacity.headroom_ratio + margin
    return GroupModel(
        classes=request_classes(demands, policy, snapshot.cache, factor=factor),
        profile=policy.profile,
        factors=stage_factors(corrections, snapshot.experts),
        backlog=_backlog(group, snapshot, policy),
    )


def _backlog(group: ModalityGroup, snapshot: ClusterSnapshot, policy: PlannerPolicy) -> Backlog:
    """Work that waits, by role; with several groups each takes the share its workers report."""
    cost, signals = policy.profile, snapshot.roles
    encode_s = prefill_s = sequences = 0.0
    encode = signals.get(Role.ENCODE)
    if encode is not None and encode.num_waiting > 0:
        encode_s = cost.encode.seconds(encode.num_waiting, encode.waiting_tokens)
    prefill = signals.get(Role.PREFILL)
    if prefill is not None and prefill.num_waiting > 0:
        each = prefill.waiting_tokens / prefill.num_waiting
        prefill_s = prefill.num_waiting * cost.prefill.work_s(each)
    decode = signals.get(Role.DECODE)
    if decode is not None:
        sequences = float(decode.num_running + decode.num_waiting)
    num_groups = len(policy.groups)
    return Backlog(
        encode_s=_share(snapshot, group, Role.ENCODE, num_groups) * encode_s,
        prefill_s=_share(snapshot, group, Role.PREFILL, num_groups) * prefill_s,
        decode_sequences=_share(snapshot, group, Role.DECODE, num_groups) * sequences,
        drain_s=policy.capacity.drain_s,
    )


def _share(snapshot: ClusterSnapshot, group: ModalityGroup, role: Role, num_groups: int) -> float:
    if num_groups == 1:
        return 1.0
    mine = every = 0
    for worker in snapshot.workers:
        if worker.role is role:
            busy = worker.num_running + worker.num_waiting
            every += busy
            mine += busy if worker.group == group.name else 0
    return mine / every if every else 1.0 / num_groups


def lane_load(model: GroupModel, role: Role) -> float:
    match role:
        case Role.ENCODE:
            return model.encode_load
        case Role.PREFILL:
            return model.prefill_load
        case _:
            return model.decode_load


@dataclass(frozen=True, kw_only=True)
class Sized:
    """Workers of each lane, and of all lanes where the roles' maxima cut them (None: nowhere)."""

    lanes: Mapping[Lane, int]
    without_maxima: int | None = None


def sized_lanes(models: Mapping[str, GroupModel], policy: PlannerPolicy) -> Sized:
    """The cheapest split of every group that meets its SLO, inside the roles' bounds."""
    lanes: dict[Lane, int] = {}
    total, is_cut = 0, False
    for name, model in models.items():
        bounds = {role: policy.bounds(Lane(name, role)) for role in SPLIT_ROLES}
        split = free = size(model, _split_bounds(bounds))
        if not (model.ttft_fits(split.encode, split.prefill) and model.decode_fits(split.decode)):
            minima = {role: Bounds(least=item.least) for role, item in bounds.items()}
            free = size(model, _split_bounds(minima))
        is_cut = is_cut or any(free.of(role) > item.most for role, item in bounds.items())
        total += free.total
        lanes |= {lane: split.of(lane.role) for lane in policy.lanes if lane.group == name}
    return Sized(lanes=lanes, without_maxima=total if is_cut else None)


def _split_bounds(bounds: Mapping[Role, Bounds]) -> SplitBounds:
    return SplitBounds(
        encode=bounds[Role.ENCODE], prefill=bounds[Role.PREFILL], decode=bounds[Role.DECODE]
    )


def drain_s(model: GroupModel, role: Role) -> float:
    """A decode worker runs empty when its longest answers end; the others within a request."""
    if role is not Role.DECODE or model.token_rate <= 0.0:
        return 0.0
    rate = sum(item.rps for item in model.classes)
    return model.token_rate / rate * model.step_s(model.sequences_per_decoder)
