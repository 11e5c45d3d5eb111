"""This file is about fitting the lanes' needs into the pool: minima, maxima, GPUs, ratios."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_planner.capacity import GroupModel
from epidote_planner.decision import Constraint
from epidote_planner.groups import burst_tolerance, share_spare
from epidote_planner.lane import Lane
from epidote_planner.policy import Bounds, PlannerPolicy
from epidote_planner.ratios import keeps, raised, share_guarded, within
from epidote_planner.sizing import Split

EXACT_LIMIT = 40  # workers up to which every split of the budget is compared


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    """Needs that fit, and what cut them (None: nothing)."""

    needs: Mapping[Lane, int]
    wanted: int  # workers before the cut
    binding: Constraint | None


def fit(
    needs: Mapping[Lane, int],
    loads: Mapping[Lane, float],
    models: Mapping[str, GroupModel],
    allocation: Mapping[Lane, int],
    policy: PlannerPolicy,
    *,
    pool_limit: int,
    held: frozenset[Lane] = frozenset(),
) -> Budgeted:
    """Needs inside every bound. Growth for a ratio guard counts as a need.

    `held` lanes keep what they have; the others' guards take that as given.
    """
    bounds = {
        lane: Bounds(least=need, most=need) if lane in held else policy.bounds(lane)
        for lane, need in needs.items()
    }
    guarded = within(
        needs,
        policy.guards,
        {lane: item.least for lane, item in bounds.items()},
        {lane: item.most for lane, item in bounds.items()},
    )
    ratio_bound = guarded != dict(needs)
    wanted = sum(guarded.values())
    if wanted <= pool_limit:
        return Budgeted(
            needs=guarded, wanted=wanted, binding=Constraint.ROLE_RATIO if ratio_bound else None
        )
    by_gpus = policy.gpu_budget is not None and pool_limit < policy.pool.most
    binding = Constraint.GPU_BUDGET if by_gpus else Constraint.POOL_MAXIMUM
    cut = _cut(guarded, loads, models, allocation, policy, pool_limit)
    return Budgeted(needs=cut, wanted=wanted, binding=binding)


def _cut(
    needs: Mapping[Lane, int],
    loads: Mapping[Lane, float],
    models: Mapping[str, GroupModel],
    allocation: Mapping[Lane, int],
    policy: PlannerPolicy,
    limit: int,
) -> dict[Lane, int]:
    """Share `limit` workers where not everyone can have what they need."""
    least = {lane: policy.bounds(lane).least for lane in needs}
    most = {lane: min(policy.bounds(lane).most, max(needs[lane], least[lane])) for lane in needs}
    guards = policy.guards
    smallest = raised(least, guards, most) if guards else None
    if smallest is not None and sum(smallest.values()) <= limit:
        spare = limit - sum(smallest.values())
        shared = share_guarded(smallest, loads, guards, most, spare)
    else:
        shared = share_spare(least, loads, most, limit - sum(least.values()))
    if len(models) != 1 or limit > EXACT_LIMIT:
        return shared
    (group, model), *_ = models.items()
    best = _split_of(shared, group)
    score = split_score(model, best)
    for split in _every_split(needs, least, limit, group, policy):
        found = split_score(model, split)
        if found > score:
            best, score = split, found
    current = _split_of(allocation, group)
    in_place = (
        sum(allocation.get(lane, 0) for lane in needs) == limit
        and all(allocation.get(lane, 0) >= least[lane] for lane in needs)
        and keeps(guards, allocation)
    )
    if in_place and _close(split_score(model, current), score, policy.rebalance_gain):
        best = current
    return {lane: best.of(lane.role) for lane in needs}


def split_score(model: GroupModel, split: Split) -> tuple[float, float]:
    """First the tolerance of the tightest role (1 is enough), then the share of good requests."""
    tightest = 1.0
    for workers, load in (
        (split.encode, model.encode_load),
        (split.prefill, model.prefill_load),
        (split.decode, model.decode_load),
    ):
        if load > 0.0:
            tightest = min(tightest, burst_tolerance(workers, load))
    tpot = model.tpot_s(split.decode)
    in_time = 1.0 if tpot <= model.tpot_limit_s else model.tpot_limit_s / tpot
    return tightest, (1.0 - model.ttft_miss_ratio(split.encode, split.prefill)) * in_time


def _close(current: tuple[float, float], best: tuple[float, float], gain: float) -> bool:
    """Whether the present split is so near the best that a switch would win too little."""
    return best[0] < gain * current[0] and (
        best[0] > current[0] or best[1] - current[1] < 1.0 - 1.0 / gain
    )


def _every_split(
    needs: Mapping[Lane, int],
    least: Mapping[Lane, int],
    limit: int,
    group: str,
    policy: PlannerPolicy,
) -> list[Split]:
    """All splits of `limit` workers inside the bounds; a few hundred at most."""
    lanes = [lane for lane in policy.lanes if lane.group == group and lane in needs]
    if len(lanes) != 3:
        return []
    first, second, third = lanes

    def kept(encode: int, prefill: int) -> bool:
        split = {first: encode, second: prefill, third: limit - encode - prefill}
        return not policy.guards or keeps(policy.guards, split)

    return [
        Split(encode=encode, prefill=prefill, decode=limit - encode - prefill)
        for encode in range(least[first], limit + 1)
        for prefill in range(least[second], limit - encode - least[third] + 1)
        if encode <= policy.bounds(first).most
        and prefill <= policy.bounds(second).most
        and limit - encode - prefill <= policy.bounds(third).most
        and kept(encode, prefill)
    ]


def _split_of(allocation: Mapping[Lane, int], group: str) -> Split:
    by_role = {lane.role.value: count for lane, count in allocation.items() if lane.group == group}
    return Split(
        encode=by_role.get("encode", 0),
        prefill=by_role.get("prefill", 0),
        decode=by_role.get("decode", 0),
    )
