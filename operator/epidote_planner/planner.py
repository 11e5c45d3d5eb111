"""This file is about the decision itself: one pure function from an observation to a plan."""

from math import isfinite

from epidote_core.roles import WorkerState
from epidote_planner.assignment import assign
from epidote_planner.budget import fit
from epidote_planner.correction import (
    RESERVE,
    demand_margin,
    observe_corrections,
    observe_margins,
)
from epidote_planner.damping import (
    forecast_need,
    forget_lost,
    lasting_need,
    remember_growth,
    remember_need,
    whole_workers,
    window_needs,
)
from epidote_planner.decision import (
    Action,
    Constraint,
    Explanation,
    Hold,
    MoveExperts,
    Plan,
    RemoveWorker,
    Step,
)
from epidote_planner.demand import expect, observe
from epidote_planner.experts import told, worthwhile_move
from epidote_planner.explanation import Finding, explain
from epidote_planner.holds import find_holds
from epidote_planner.intake import take_in
from epidote_planner.lane import Lane
from epidote_planner.memory import PlannerMemory
from epidote_planner.models import drain_s, group_model, lane_load, sized_lanes
from epidote_planner.policy import PlannerPolicy
from epidote_planner.preempt import preempted
from epidote_planner.pressure import NO_PRESSURE, advise
from epidote_planner.reach import unreachable
from epidote_planner.seating import Goal, count_lanes
from epidote_planner.snapshot import ClusterSnapshot
from epidote_planner.starts import review_starts


def plan(
    snapshot: ClusterSnapshot, policy: PlannerPolicy, memory: PlannerMemory | None = None
) -> Plan:
    """What to do now. Pure: the same arguments give an equal plan.

    Missing or stale traffic holds everything; missing metrics of a role hold that role. Figures
    that cannot be (no number, negative, a time far ahead) are missing, too, and never remembered.
    """
    memory = memory or PlannerMemory()
    snapshot, refused = take_in(snapshot, policy)
    if not isfinite(snapshot.now_s):
        return _timeless(snapshot, memory, refused)
    now_s = snapshot.now_s
    memory = memory.as_of(now_s)
    holds = find_holds(snapshot, policy, refused)
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
    margins = observe_margins(
        snapshot, memory.margins, passed_s, policy, shed_ratio=memory.shed_ratio
    )
    models = {
        group.name: group_model(group, demand, snapshot, policy, corrections, margins)
        for group in policy.groups
    }
    loads = {lane: lane_load(models[lane.group], lane.role) for lane in policy.lanes}

    held = frozenset(hold.lane for hold in holds if hold.lane is not None)
    sized = sized_lanes(models, policy)
    needs = {lane: before.get(lane, 0) if lane in held else n for lane, n in sized.lanes.items()}
    limit = sum(before.values()) if policy.fixed_pool else policy.max_workers
    budgeted = fit(needs, loads, models, before, policy, pool_limit=limit, held=held)

    need = sum(budgeted.needs.values())
    pool_need = remember_need(memory, float(budgeted.wanted), now_s, policy)
    reserve = margins.get(RESERVE, 1.0)
    expected = forecast_need(pool_need.better, reserve, policy)
    window = window_needs(
        memory,
        whole_workers(lasting_need(need, expected, pool_need.better.error, reserve)),
        present=sum(before.values()),
        now_s=now_s,
        policy=policy,
    )
    if any(worker.state is WorkerState.FAILED for worker in starts.given_up):
        window = forget_lost(window, present=sum(before.values()))
    pool_target = min(limit, max(window[0][1], policy.pool.least))
    if policy.fixed_pool or held_whole:
        pool_target = sum(before.values())

    goal = Goal(
        needs=before if held_whole else preempted(budgeted.needs, before, workers, models, policy),
        loads=loads,
        pool_target=pool_target,
        limit=limit,
        room=policy.free_slots(len(snapshot.workers)),
        may_start=not policy.fixed_pool and starts.blocked_until_s is None and not held_whole,
        held=frozenset(policy.lanes) if held_whole else held,
        drain_s={lane: drain_s(models[lane.group], lane.role) for lane in policy.lanes},
        guards=policy.guards,
    )
    assignment = assign(workers, goal, memory.last_switch_s, now_s, policy)
    if assignment.starts:
        window = remember_growth(window, sum(assignment.targets.values()))

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
        least=sum(before.values()) if policy.fixed_pool else policy.pool.least,
        has_given_size=policy.has_given_size,
        without_maxima=sized.without_maxima,
        cut=_cut_by(budgeted.binding, sized.without_maxima),
        holds=holds,
        gave_up=len(give_ups),
        failed=sum(w.state is WorkerState.FAILED and not w.leaving for w in starts.given_up),
        starts_blocked=starts.blocked_until_s is not None,
        cooling=assignment.cooling,
        experts_moved=told(snapshot.experts, expert_move)
        if snapshot.experts is not None and expert_move is not None
        else "",
        backlog_s=sum(m.backlog.encode_s + m.backlog.prefill_s for m in models.values()),
        margin=demand_margin(margins),
        unreachable=next((found for m in models.values() if (found := unreachable(m))), None),
    )
    renewed = PlannerMemory(
        at_s=now_s,
        modalities=seen.modalities,
        pool_need=memory.pool_need if held_whole else pool_need.quick,
        pool_steady=memory.pool_steady if held_whole else pool_need.steady,
        cache_hit_ratio=memory.cache_hit_ratio if held_whole else seen.cache_hit_ratio,
        corrections=corrections,
        margins=margins,
        pool_needs=memory.pool_needs if held_whole else window,
        shed_ratio=0.0 if calm else pressure.advice.shed_ratio,
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
            *_unread(memory),
            Step(name="demand", values={m.modality.value: m.rps for m in demand.modalities}),
            Step(name="capacity", values={**corrections, **margins}),
            Step(name="load", values={str(lane): load for lane, load in loads.items()}),
            Step(name="sizing", values={str(lane): float(n) for lane, n in sized.lanes.items()}),
            Step(name="budget", values={str(k): float(n) for k, n in budgeted.needs.items()}),
            Step(name="damping", values={"target": float(pool_target), "forecast": expected}),
            Step(
                name="assignment",
                values={str(lane): float(n) for lane, n in assignment.targets.items()},
            ),
        ),
    )


def _timeless(snapshot: ClusterSnapshot, memory: PlannerMemory, holds: tuple[Hold, ...]) -> Plan:
    """Without the time nothing can be judged: everything stays, the memory too."""
    targets = count_lanes(tuple(worker for worker in snapshot.workers if not worker.leaving))
    reason, field = holds[0].reason, holds[0].field
    counterfactual = "With the time known the demand would have been sized again."
    return Plan(
        targets=targets,
        actions=(),
        memory=memory,
        explanation=Explanation(
            reason=reason,
            binding=Constraint.METRICS,
            counterfactual=counterfactual,
            text=f"{reason.value}: keep everything. {counterfactual} Not believed: {field}.",
        ),
        holds=holds,
    )


def _unread(memory: PlannerMemory) -> tuple[Step, ...]:
    """A first step that tells of a memory that could not be read: the plan starts afresh."""
    return (Step(name="memory", note=memory.unreadable),) if memory.unreadable else ()


def _cut_by(binding: Constraint | None, without_maxima: int | None) -> Constraint | None:
    """What the needs were cut by: the pool before its roles, and those before their ratios."""
    if without_maxima is not None and binding in (None, Constraint.ROLE_RATIO):
        return Constraint.ROLE_MAXIMUM
    return binding


def _react_s(policy: PlannerPolicy) -> float:
    """How long the next correction of roles takes: roles look no further ahead than that."""
    return policy.tick_s + policy.profile.reload_switch_s
