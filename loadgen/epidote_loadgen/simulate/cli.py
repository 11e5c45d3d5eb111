"""This file is about the command line: run a policy over a trace, or advise a fleet for it.

    python -m epidote_loadgen.simulate --trace servegen:DAY.csv.gz --profile internvl2-26b-a100
    python -m epidote_loadgen.simulate --advise --rps 8 --images 2 --ttft 5 --tpot 0.1

Results on stdout (`--json` for machines), the configuration on stderr. Exit status: 0 the SLO was
met, 1 missed, 2 a wrong command.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_loadgen.simulate.advice import advise
from epidote_loadgen.simulate.bound import lower_bound
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import Policy, nothing, planner
from epidote_loadgen.simulate.profiles import load_profile, profile_names
from epidote_loadgen.simulate.report import html_report
from epidote_loadgen.simulate.rivals.epdserve import LongestQueue, longest_queue
from epidote_loadgen.simulate.rivals.hpa import HpaRule, Metric, hpa
from epidote_loadgen.simulate.simulation import simulate
from epidote_loadgen.simulate.trace_spec import Trace, open_trace, rates
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import PlannerPolicy

POLICIES = ("epidote", "static", "hpa", "hpa-coupled", "longest-queue")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="epidote-loadgen simulate",
        description=__doc__.partition("\n\n")[0],
        epilog="example: epidote-loadgen simulate --rps 8 --images 1 --html run.html",
    )
    top.add_argument("--profile", default="internvl2-26b-a100", help=", ".join(profile_names()))
    top.add_argument("--policy", choices=POLICIES, default="epidote")
    top.add_argument("--advise", action="store_true", help="print the cheapest fleet instead")
    load = top.add_argument_group("load: a trace, or rates")
    load.add_argument("--trace", help="FORMAT:PATH")
    load.add_argument("--start", type=float, default=0.0, help="seconds into the trace")
    load.add_argument("--duration", type=float, default=1800.0, help="seconds")
    load.add_argument("--rps", type=float, default=4.0)
    load.add_argument("--text-tokens", type=int, default=500)
    load.add_argument("--output-tokens", type=int, default=130)
    load.add_argument("--images", type=int, default=1)
    load.add_argument("--image-tokens", type=int, default=576, help="of one image")
    slo = top.add_argument_group("promise")
    slo.add_argument("--ttft", type=float, default=5.0, help="seconds")
    slo.add_argument("--tpot", type=float, default=0.1, help="seconds")
    slo.add_argument("--quantile", type=float, default=0.99)
    fleet = top.add_argument_group("fleet")
    fleet.add_argument("--initial", default="4,5,2", help="encode,prefill,decode workers")
    fleet.add_argument("--startup", type=float, help="seconds until a new worker serves")
    fleet.add_argument("--tick", type=float, default=10.0, help="seconds")
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--json", action="store_true")
    top.add_argument("--html", type=Path, help="write the report here")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    top = parser()
    args = top.parse_args(argv)
    try:
        profile = load_profile(args.profile, startup_s=args.startup)
        slo = Slo(ttft_s=args.ttft, tpot_s=args.tpot, quantile=args.quantile)
        trace = _trace(args)
        encode, prefill, decode = (int(part) for part in args.initial.split(","))
    except ValueError as error:
        top.error(str(error))  # exit status 2
    print(f"configuration: {json.dumps(vars(args), default=str)}", file=sys.stderr)
    if args.advise:
        return _advise(trace, profile, slo, as_json=args.json)
    layout = Layout.COUPLED if args.policy == "hpa-coupled" else Layout.SPLIT
    initial = (
        coupled(encode + prefill + decode)
        if layout is Layout.COUPLED
        else split(encode, prefill, decode)
    )
    config = SimConfig(
        profile=profile,
        slo=slo,
        layout=layout,
        initial=initial,
        tick_s=args.tick,
        seed=args.seed,
    )
    policy = _policy(args.policy, profile, slo, args.tick)
    outcome = simulate(config, policy, trace())
    bound = lower_bound(config, trace(), attainment=outcome.attainment).gpu_seconds
    _show(outcome, bound, as_json=args.json)
    if args.html:
        page = html_report(
            outcome, title=f"{args.policy} on {profile.name}", configuration=str(vars(args))
        )
        args.html.write_text(page, encoding="utf-8")
    return 0 if outcome.attainment >= slo.quantile else 1


def _trace(args: argparse.Namespace) -> Trace:
    if args.trace:
        return open_trace(args.trace, start_s=args.start, end_s=args.start + args.duration)
    return rates(
        rps=args.rps,
        text_tokens=args.text_tokens,
        output_tokens=args.output_tokens,
        images=args.images,
        image_tokens=args.image_tokens,
        duration_s=args.duration,
        seed=args.seed,
    )


def _policy(name: str, profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    lanes = {role: Lane(DEFAULT_GROUP, role) for role in Role}
    match name:
        case "epidote":
            return planner(PlannerPolicy(profile=profile, slo=slo, tick_s=tick_s))
        case "hpa":
            busy = HpaRule(metric=Metric.BUSY, target=0.5)
            return hpa(
                {
                    lanes[Role.ENCODE]: busy,
                    lanes[Role.PREFILL]: busy,
                    lanes[Role.DECODE]: HpaRule(metric=Metric.KV, target=0.5),
                }
            )
        case "hpa-coupled":
            return hpa({lanes[Role.ALL]: HpaRule(metric=Metric.CONCURRENCY, target=4.0)})
        case "longest-queue":
            return longest_queue(LongestQueue())
        case _:
            return nothing


def _show(outcome: Outcome, bound: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**outcome.to_json(), "lower_bound_gpu_seconds": bound}))
        return
    print(
        f"attainment {outcome.attainment:.4f} of {outcome.num_requests} requests "
        f"(TTFT {outcome.ttft_attainment:.4f}, TPOT {outcome.tpot_attainment:.4f})\n"
        f"goodput {outcome.goodput_rps:.3f} requests/s\n"
        f"TTFT p50 {outcome.ttft_s['p50']:.3f} s, p99 {outcome.ttft_s['p99']:.3f} s; "
        f"TPOT p50 {outcome.tpot_s['p50']:.4f} s, p99 {outcome.tpot_s['p99']:.4f} s\n"
        f"GPU-seconds {outcome.gpu_seconds:.0f} ({outcome.mean_gpus:.2f} GPUs, "
        f"{outcome.gpu_seconds_per_good:.3f} per good request; no policy could use fewer than "
        f"{bound:.0f})\n"
        f"switches {outcome.num_switches}, starts {outcome.num_starts}, removals "
        f"{outcome.num_removals}, reversals {outcome.num_reversals}, "
        f"regrown {outcome.num_regrown}"
    )


def _advise(trace: Trace, profile: PerformanceProfile, slo: Slo, *, as_json: bool) -> int:
    found = advise(trace, profile, slo)
    if as_json:
        print(
            json.dumps(
                {
                    "encode": found.encode,
                    "prefill": found.prefill,
                    "decode": found.decode,
                    "coupled": found.coupled,
                    "attainment": found.outcome.attainment,
                    "limit": found.limit,
                }
            )
        )
    else:
        without = f"{found.coupled} workers" if found.coupled else "over three times as many"
        print(
            f"cheapest fleet: {found.total} workers, {found.encode} encode + {found.prefill} "
            f"prefill + {found.decode} decode; attainment {found.outcome.attainment:.4f}\n"
            f"without roles: {without}\nlimit: {found.limit}"
        )
    return 0 if found.outcome.attainment >= slo.quantile else 1
