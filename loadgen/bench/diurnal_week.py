"""A diurnal week of conversation and a production hour: attainment, cost and reversals.

    python loadgen/bench/diurnal_week.py --data DATA

The week: Azure's 2024 conversation rates (digitised) thinned to a twentieth, Poisson within them,
prompt and output lengths from the published distributions. The hour: Azure's conversation trace
of 2023 as it is. Parameters are chosen on the first day and reported on the other six; the
hour uses the same ones.
"""  # noqa: INP001

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_loadgen.simulate.bound import lower_bound
from epidote_loadgen.simulate.config import SimConfig, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import Policy, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.rivals.hpa import HpaRule, Metric, hpa
from epidote_loadgen.simulate.search import Values, tune
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_loadgen.simulate.traces import azure_conversation, poisson, series, token_cdf
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.policy import (
    Bounds,
    CapacityPolicy,
    DampingPolicy,
    DemandPolicy,
    PlannerPolicy,
)

PROFILE = load_profile("internvl2-26b-a100", startup_s=120.0)
SLO = Slo(ttft_s=5.0, tpot_s=0.1, quantile=0.999)
DAY_S = 86_400.0
TUNE_S = DAY_S
TICK_S = 10.0


def week(data: Path, start_s: float, end_s: float, thinning: float) -> Iterator[SimRequest]:
    folder = data / "azure2024_rates"
    rpm = series(folder / "conversation_rpm.csv", "rpm_mid")
    prompt = token_cdf(folder / "conversation_input_tokens_cdf.csv")
    output = token_cdf(folder / "conversation_output_tokens_cdf.csv")

    def make(now_s: float, random: Random) -> SimRequest:
        return SimRequest(now_s, prompt(random), output(random))

    rate = lambda now_s: rpm(now_s + start_s) / thinning  # noqa: E731
    peak = max(rpm(at_s) for at_s in range(0, int(7 * DAY_S), 432)) / thinning
    return poisson(rate, peak, make, end_s=end_s - start_s, seed=int(start_s))


def ours(values: Values) -> Policy:
    return planner(
        PlannerPolicy(
            profile=PROFILE,
            slo=SLO,
            roles={
                Role.ENCODE: Bounds(least=0, most=0),
                Role.PREFILL: Bounds(least=1),
                Role.DECODE: Bounds(least=1),
            },
            tick_s=TICK_S,
            demand=DemandPolicy(burst_sigmas=values["burst_sigmas"]),
            damping=DampingPolicy(shrink_window_s=values["window_s"]),
            capacity=CapacityPolicy(headroom_ratio=values["headroom_ratio"]),
        )
    )


def separate(values: Values) -> Policy:
    window = values["window_s"]
    prefill = HpaRule(metric=Metric.BUSY, target=values["prefill"], down_window_s=window)
    decode = HpaRule(metric=Metric.KV, target=values["decode"], down_window_s=window)
    return hpa(
        {
            Lane(DEFAULT_GROUP, Role.PREFILL): prefill,
            Lane(DEFAULT_GROUP, Role.DECODE): decode,
        }
    )


GRIDS: dict[str, tuple[Callable[[Values], Policy], dict[str, tuple[float, ...]]]] = {
    "Epidote": (
        ours,
        {
            "burst_sigmas": (2.0, 1.0, 0.0, 3.0),
            "window_s": (300.0, 600.0),
            "headroom_ratio": (0.1, 0.0),
        },
    ),
    "HPA, separate pools": (
        separate,
        {
            "prefill": (0.6, 0.5, 0.7),
            "decode": (0.7, 0.5, 0.85),
            "window_s": (300.0, 600.0),
        },
    ),
}


def run(policy: Policy, trace: Iterator[SimRequest], prefill: int, decode: int) -> Outcome:
    initial = {lane: n for lane, n in split(0, prefill, decode).items() if n}
    config = SimConfig(profile=PROFILE, slo=SLO, initial=initial, tick_s=TICK_S, warmup_s=600.0)
    return simulate(config, policy, trace)


def report(name: str, policy: Policy, trace: Callable[[], Iterator[SimRequest]]) -> dict[str, Any]:
    outcome = run(policy, trace(), 12, 4)
    config = SimConfig(profile=PROFILE, slo=SLO)
    bound = lower_bound(config, trace(), attainment=min(SLO.quantile, outcome.attainment))
    bound_gpus = bound.gpu_seconds / outcome.duration_s
    print(
        f"{name:28} {outcome.attainment:.5f} of {outcome.num_requests} at "
        f"{outcome.mean_gpus:6.2f} GPUs (bound {bound_gpus:.2f})  switches "
        f"{outcome.num_switches}  starts {outcome.num_starts}  reversals {outcome.num_reversals}  "
        f"regrown {outcome.num_regrown}",
        flush=True,
    )
    return {**outcome.summary(), "lower_bound_gpus": bound_gpus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--days", type=float, default=7.0, help="last day to report")
    parser.add_argument("--thinning", type=float, default=20.0)
    parser.add_argument("--only", choices=tuple(GRIDS), help="one contender")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    thinning, end_s = 60.0 * args.thinning, args.days * DAY_S
    hour = args.data / "azure2023" / "AzureLLMInferenceTrace_conv.csv"
    rows = {}
    for name, (make, grid) in GRIDS.items():
        if args.only and name != args.only:
            continue

        def tuning(values: Values, make: Callable[[Values], Policy] = make) -> Outcome:
            return run(make(values), week(args.data, 0.0, TUNE_S, thinning), 12, 4)

        found = tune(grid, tuning, attainment=0.9992, rounds=1)
        print(
            f"{name}: {dict(found.values)}, tuned to {found.outcome.attainment:.5f} at "
            f"{found.outcome.mean_gpus:.2f} GPUs in {found.num_runs} runs",
            flush=True,
        )
        rows[f"{name}, week"] = report(
            f"{name}, week",
            make(found.values),
            lambda: week(args.data, TUNE_S, end_s, thinning),
        )
        rows[f"{name}, hour"] = report(
            f"{name}, hour", make(found.values), lambda: azure_conversation(hour)
        )
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
