"""This file is about the decision itself: one pure function from an observation to a plan."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from epidote_core.roles import Role, WorkerState
from epidote_planner.assignment import Goal, assign, count_lanes
from epidote_planner.budget import fit
from epidote_planner.capacity import Backlog, GroupModel
from epidote_planner.correction import observe_corrections, observe_margins, stage_factors
from epidote_planner.damping import forecast_need, remember_need, window_needs
from epidote_planner.decision import Action, MoveExperts, Plan, RemoveWorker, Step
from epidote_planner.demand import Demand, expect, observe
from epidote_planner.experts import worthwhile_move
from epidote_planner.explanation import Finding, explain
from epidote_planner.groups import LanePressure, preemption
from epidote_planner.holds import find_holds
from epidote_planner.lane import Lane
from epidote_planner.memory import PlannerMemory
from epidote_planner.policy import ModalityGroup, PlannerPolicy
from epidote_planner.pressure import NO_PRESSURE, advise
from epidote_planner.sizing import SplitBounds, size
from epidote_planner.snapshot import ClusterSnapshot, WorkerStatus
from epidote_planner.starts import review_starts
from epidote_planner.workload import request_classes

DECODE_PENALTY = 0.05  # ElasticMM's weight of the slow-down of those who stay (its default w)
GAIN_HORIZON = 20.0  # intervals a pre-emption pays back in; ElasticMM: sum of 0.95^k


def plan(
    snapshot: ClusterSnapshot, policy: PlannerPolicy, memory: PlannerMemory | None = None
) -> Plan:
    """What to do now. Pure: the same arguments give an equal plan.

    Missing or stale traffic holds everything; missing metrics of a role hold that role.
    """
    memory = memory or PlannerMemory()
    now_s = snapshot.now_s
    holds = find_holds(snapshot, policy)
    starts = review_starts(snapshot, memory, policy)
    lost = {worker.name for worker in starts.given_up}
    workers = tuple(w for w in snapshot.workers if not w.leaving and w.name not in lost)
    give_ups = tuple(
        RemoveWorker(worker=w.name, lane=Lane(w.group, w.role), gave_up=True)
        for w in starts.given_up
        if not w.leaving
    )
    before = count_lanes(workers)
    held_whole = any(hold.lane is None for hold in holds)

    passed_s = max(0.0, now_s - memory.at_s) if memory.at_s is not None else policy.tick_s
    seen = observe(snapshot, memory, policy.demand)
    demand = expect(
        seen, snapshot.cache.response_hit_ratio, ahead_s=_react_s(policy), policy=policy.demand
    )
    corrections = observe_corrections(snapshot, memory.corrections, passed_s, policy)
    margins = observe_margins(snapshot, memory.margins, passed_s, policy)
    models = {
        group.name: _model(group, demand, snapshot, policy, corrections, margins)
        for group in policy.groups
    }
    loads = {lane: _load(models[lane.group], lane.role) for lane in policy.lanes}

    held = frozenset(hold.lane for hold in holds if hold.lane is not None)
    sized = _sized(models, policy)
    needs = {lane: before.get(lane, 0) if lane in held else n for lane, n in sized.items()}
    limit = sum(before.values()) if policy.fixed_pool else policy.max_workers
    budgeted = fit(needs, loads, models, before, policy, pool_limit=limit)

    need = sum(budgeted.needs.values())
    pool_need = remember_need(memory, float(budgeted.wanted), now_s, policy)
    expected = forecast_need(pool_need, policy)
    window = window_needs(memory, max(need, ceil(expected - 1e-9)), now_s, policy)
    pool_target = min(limit, max(need, window[0][1], policy.pool.least))
    if policy.fixed_pool or held_whole:
        pool_target = sum(before.values())

    goal = Goal(
        needs=before if held_whole else _preempted(budgeted.needs, before, workers, models, policy),
        loads=loads,
        pool_target=pool_target,
        limit=limit,
        may_start=not policy.fixed_pool and starts.blocked_until_s is None and not held_whole,
        held=frozenset(policy.lanes) if held_whole else held,
        drain_s={lane: _drain_s(models[lane.group], lane.role) for lane in policy.lanes},
    )
    assignment = assign(workers, goal, memory.last_switch_s, now_s, policy)

    routable = count_lanes(tuple(w for w in workers if w.state is WorkerState.ROUTABLE))
    expert_move = worthwhile_move(
        snapshot.experts,
        horizon_s=policy.damping.shrink_window_s,
        cost_factor=policy.expert_cost_factor,
    )
    tight = max((loads[lane] / max(1, routable.get(lane, 0)) for lane in loads), default=0.0)
    total_ready = sum(routable.values())
    pressure = advise(
        tight * total_ready, total_ready, memory.overloaded_since_s, now_s, policy.pressure
    )
    calm = held_whole or pressure.advice == NO_PRESSURE  # unseen load is no reason to shed
    urgent: tuple[Action, ...] = () if calm else (pressure.advice,)
    moving: tuple[Action, ...] = (MoveExperts(move=expert_move),) if expert_move else ()
    actions = (*urgent, *moving, *give_ups, *assignment.actions)

    finding = Finding(
        rps=demand.rps,
        cache_hit_ratio=demand.cache_hit_ratio,
        cache_lost=demand.cache_lost,
        models=models,
        needs=budgeted.needs,
        wanted=budgeted.wanted,
        before=before,
        targets=assignment.targets,
        routable=routable,
        pool_target=pool_target,
        forecast=expected,
        limit=limit,
        cut=budgeted.binding,
        holds=holds,
        gave_up=len(give_ups),
        starts_blocked=starts.blocked_until_s is not None,
        cooling=assignment.cooling,
        experts_moved=expert_move is not None,
        backlog_s=sum(m.backlog.encode_s + m.backlog.prefill_s for m in models.values()),
        margin=max(margins.values(), default=0.0),
    )
    renewed = PlannerMemory(
        at_s=now_s,
        modalities=seen.modalities,
        pool_need=memory.pool_need if held_whole else pool_need,
        cache_hit_ratio=memory.cache_hit_ratio if held_whole else seen.cache_hit_ratio,
        corrections=corrections,
        margins=margins,
        pool_needs=memory.pool_needs if held_whole else window,
        last_switch_s=assignment.last_switch_s,
        starts_blocked_until_s=starts.blocked_until_s,
        overloaded_since_s=pressure.overloaded_since_s,
    )
    return Plan(
        targets=assignment.targets,
        actions=actions,
        memory=renewed,
        explanation=explain(finding),
        holds=holds,
        trace=(
            Step(name="demand", values={m.modality.value: m.rps for m in demand.modalities}),
            Step(name="capacity", values={**corrections, **margins}),
            Step(name="load", values={str(lane): load for lane, load in loads.items()}),
            Step(name="sizing", values={str(lane): float(n) for lane, n in sized.items()}),
            Step(name="budget", values={str(k): float(n) for k, n in budgeted.needs.items()}),
            Step(name="damping", values={"target": float(pool_target), "forecast": expected}),
            Step(
                name="assignment",
                values={str(lane): float(n) for lane, n in assignment.targets.items()},
            ),
        ),
    )


def _react_s(policy: PlannerPolicy) -> float:
    """How long the next correction of roles takes: roles look no further ahead than that."""
    return policy.tick_s + policy.profile.reload_switch_s


def _model(
    group: ModalityGroup,
    demand: Demand,
    snapshot: ClusterSnapshot,
    policy: PlannerPolicy,
    corrections: Mapping[str, float],
    margins: Mapping[str, float],
) -> GroupModel:
    """Predictions for one group, at its forecast demand plus head-room and margin."""
    demands = tuple(item for item in demand.modalities if item.modality in group.modalities)
    margin = max(margins.values(), default=0.0)
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
    encode, prefill = signals.get(Role.ENCODE), signals.get(Role.PREFILL)
    decode = signals.get(Role.DECODE)
    shares = {
        role: _share(snapshot, group, role, len(policy.groups))
        for role in (Role.ENCODE, Role.PREFILL, Role.DECODE)
    }
    return Backlog(
        encode_s=shares[Role.ENCODE]
        * (cost.encode.seconds(encode.num_waiting, encode.waiting_tokens) if encode else 0.0)
        * (1.0 if encode and encode.num_waiting else 0.0),
        prefill_s=shares[Role.PREFILL]
        * (cost.prefill.work_s(prefill.waiting_tokens) if prefill else 0.0)
        if not prefill or prefill.num_waiting <= 1
        else shares[Role.PREFILL]
        * prefill.num_waiting
        * cost.prefill.work_s(prefill.waiting_tokens / prefill.num_waiting),
        decode_sequences=shares[Role.DECODE]
        * (decode.num_running + decode.num_waiting if decode else 0),
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


def _load(model: GroupModel, role: Role) -> float:
    match role:
        case Role.ENCODE:
            return model.encode_load
        case Role.PREFILL:
            return model.prefill_load
        case _:
            return model.decode_load


def _sized(models: Mapping[str, GroupModel], policy: PlannerPolicy) -> dict[Lane, int]:
    sized: dict[Lane, int] = {}
    for name, model in models.items():
        bounds = SplitBounds(
            encode=policy.bounds(Lane(name, Role.ENCODE)),
            prefill=policy.bounds(Lane(name, Role.PREFILL)),
            decode=policy.bounds(Lane(name, Role.DECODE)),
        )
        split = size(model, bounds)
        for lane in policy.lanes:
            if lane.group == name:
                sized[lane] = split.of(lane.role)
    return sized


def _drain_s(model: GroupModel, role: Role) -> float:
    """A decode worker runs empty when its longest answers end; the others within a request."""
    if role is not Role.DECODE or model.token_rate <= 0.0:
        return 0.0
    rate = sum(item.rps for item in model.classes)
    return model.token_rate / rate * model.step_s(model.sequences_per_decoder)


def _preempted(
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
    return {
        **needs,
        donor: min(needs[donor], before[donor] - 1),
        receiver: max(needs[receiver], before.get(receiver, 0) + 1),
    }


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
    each_s = _load(model, lane.role) / arrivals if arrivals > 0.0 else 0.0
    return LanePressure(
        workers=count,
        waiting_work_s=waiting * each_s,
        waiting_tokens=waiting * tokens,
        running_work_s=running * each_s,
        running_tokens=running * tokens,
        num_running=running,
    )


def with_memory(decided: Plan, memory: PlannerMemory) -> Plan:
    """The same plan with another memory; for tests that compare plans apart from it."""
    return replace(decided, memory=memory)
