"""Where the multimodal day's GPU-hours above the lower bound go, one cause at a time.

    python loadgen/bench/multimodal_day.py --data DATA --startup 120 --only Epidote --out ours.json
    python loadgen/bench/day_decomposition.py --data DATA --startup 120 --tuned ours.json

From the bound upwards every row adds one thing that a real fleet has and the bound does not; then
the tuned planner loses one thing at a time. Parameters are those that `multimodal_day.py` chose on
hours 0 to 3; the rows are of hours 9 to 21 and choose nothing.
"""  # noqa: INP001

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import multimodal_day as day

from epidote_loadgen.simulate.advice import demand_of
from epidote_loadgen.simulate.bound import lower_bound
from epidote_loadgen.simulate.config import SimConfig, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import Decision, Policy, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_planner.capacity import GroupModel
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import CapacityPolicy, DemandPolicy, PlannerPolicy, PressurePolicy
from epidote_planner.sizing import SplitBounds, size
from epidote_planner.snapshot import CacheSignals, ClusterSnapshot, ModalityTraffic
from epidote_planner.workload import request_classes

WINDOW_S = 60.0
AHEAD_S = 30.0  # what the oracle sees: a queue inside the SLO hides shorter peaks
SMALLEST, LARGEST = 10, 30  # workers of a constant pool


def windows(
    trace: Iterator[SimRequest], window_s: float
) -> Iterator[tuple[float, list[SimRequest]]]:
    """Start and requests of each window."""
    start_s, rows = 0.0, []
    for request in trace:
        while request.arrival_s >= start_s + window_s:
            yield start_s, rows
            start_s, rows = start_s + window_s, []
        rows.append(request)
    yield start_s, rows


def ideal(data: Path, rules: PlannerPolicy) -> tuple[float, float]:
    """Mean busy workers of the true demand, and mean workers of its cheapest split."""
    busy, sized = [], []
    for start_s, rows in windows(day.trace(data, day.REPORT_HOURS), WINDOW_S):
        demand = demand_of(rows, start_s=start_s, duration_s=WINDOW_S)
        model = GroupModel(
            classes=request_classes(demand, rules, CacheSignals()), profile=rules.profile
        )
        busy.append(model.encode_load + model.prefill_load + model.decode_load)
        sized.append(size(model, SplitBounds()).total)
    return sum(busy) / len(busy), sum(sized) / len(sized)


def oracle(data: Path, rules: PlannerPolicy) -> Policy:
    """The planner, told what will arrive in the next seconds instead of what has."""
    seen: dict[int, tuple[ModalityTraffic, ...]] = {}
    steps = round(AHEAD_S / rules.tick_s)
    recent: list[list[SimRequest]] = []
    for start_s, rows in windows(day.trace(data, day.REPORT_HOURS), rules.tick_s):
        recent = [*recent[1 - steps :], rows]
        first_s = start_s - AHEAD_S + rules.tick_s
        together = [request for part in recent for request in part]
        seen[round(first_s / rules.tick_s)] = tuple(
            ModalityTraffic(
                modality=item.modality,
                arrival_rps=item.rps,
                input_tokens=item.input_tokens,
                output_tokens=item.output_tokens,
                images=item.images,
                image_tokens=item.image_tokens,
            )
            for item in demand_of(together, start_s=first_s, duration_s=AHEAD_S)
        )
    decide = planner(rules)

    def told(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        traffic = seen.get(round(snapshot.now_s / rules.tick_s), snapshot.traffic)
        return decide(replace(snapshot, traffic=traffic), memory)

    return told


def run(data: Path, policy: Policy, profile: PerformanceProfile, initial: int = 16) -> Outcome:
    encode = round(0.4 * initial)
    config = SimConfig(
        profile=profile,
        slo=day.SLO,
        slo_by_modality=day.SLO_BY_MODALITY,
        initial=split(encode, initial - encode - 2, 2),
        tick_s=day.TICK_S,
        warmup_s=600.0,
    )
    return simulate(config, policy, day.trace(data, day.REPORT_HOURS))


def constant_pool(data: Path, rules: PlannerPolicy) -> tuple[int, Outcome]:
    """The smallest pool of a constant size that reaches the attainment, roles free."""
    fixed = planner(replace(rules, fixed_pool=True))
    low, high = SMALLEST - 1, LARGEST
    best = run(data, fixed, rules.profile, high)
    while high - low > 1:
        middle = (low + high) // 2
        outcome = run(data, fixed, rules.profile, middle)
        if outcome.attainment >= day.ATTAINMENT:
            high, best = middle, outcome
        else:
            low = middle
    return high, best


def variants(rules: PlannerPolicy) -> dict[str, PlannerPolicy]:
    """The tuned planner without one thing at a time."""
    profile = rules.profile
    no_window = replace(rules.damping, shrink_window_s=0.0)
    return {
        "tuned": rules,
        "without start-up": replace(rules, profile=replace(profile, startup_s=0.0)),
        "without the reserve for forecast errors": replace(
            rules, demand=replace(rules.demand, burst_sigmas=0.0)
        ),
        "without the shrink window": replace(rules, damping=no_window),
        "without head-room": replace(
            rules, capacity=replace(rules.capacity, headroom_ratio=0.0, margin_max=0.0)
        ),
        "with switches that take no time": replace(
            rules, profile=replace(profile, switch_s=0.0, reload_switch_s=0.0)
        ),
        "without shedding": replace(rules, pressure=PressurePolicy(enter_load=day.NEVER)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--startup", type=float, default=120.0, help="seconds")
    parser.add_argument("--tuned", type=Path, required=True, help="--out of multimodal_day.py")
    args = parser.parse_args()
    profile = load_profile("internvl2-26b-a100", startup_s=args.startup)
    values = json.loads(args.tuned.read_text(encoding="utf-8"))["Epidote"]["parameters"]
    rules = day.ours(profile, values)
    config = SimConfig(profile=profile, slo=day.SLO, slo_by_modality=day.SLO_BY_MODALITY)
    trace = day.trace(args.data, day.REPORT_HOURS)
    bound = lower_bound(config, trace, attainment=day.ATTAINMENT)
    hours = day.REPORT_HOURS[1] - day.REPORT_HOURS[0]

    def tell(name: str, gpus: float, outcome: Outcome | None = None) -> None:
        met = f"attainment {outcome.attainment:.4f}" if outcome else ""
        print(f"{name:55} {gpus:6.2f} GPUs  {met}", flush=True)

    tell("lower bound: work alone, in full batches", bound.gpu_seconds / (3600.0 * hours))
    busy, sized = ideal(args.data, rules)
    tell(f"busy workers of every {WINDOW_S:.0f} s, known in advance", busy)
    tell("and queues inside the SLO, whole workers of each role", sized)
    at_once = replace(profile, startup_s=0.0, switch_s=0.0, reload_switch_s=0.0)
    bare = replace(
        rules,
        profile=at_once,
        demand=DemandPolicy(
            smoothing_s=0.01, pool_smoothing_s=0.01, burst_sigmas=0.0, season_s=0.0
        ),
        damping=replace(rules.damping, shrink_window_s=0.0, dwell_s=0.0, switch_cooldown_s=0.0),
        capacity=CapacityPolicy(headroom_ratio=0.0, margin_max=0.0),
        pressure=PressurePolicy(enter_load=day.NEVER),
    )
    outcome = run(args.data, oracle(args.data, bare), at_once)
    tell(f"simulated: the next {AHEAD_S:.0f} s known, changes at once", outcome.mean_gpus, outcome)
    count, outcome = constant_pool(args.data, rules)
    tell("a constant pool, roles free", count, outcome)
    for name, changed in variants(rules).items():
        outcome = run(args.data, planner(changed), changed.profile)
        tell(f"planner, {name}", outcome.mean_gpus, outcome)


if __name__ == "__main__":
    main()
