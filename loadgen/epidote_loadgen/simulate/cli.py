"""This file is about the command line: run a policy over a trace, or advise a fleet for it.

    epidote-loadgen simulate --trace servegen:DAY.csv.gz --profile internvl2-26b-a100
    epidote-loadgen simulate --advise --rps 8 --images 2 --ttft 5 --tpot 0.1

Results on stdout (`--json` for machines), the configuration on stderr. Exit status: 0 the SLO was
met (`--advise`: by some fleet), 1 missed (by every fleet tried), 2 a wrong command.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from epidote_core.slo import Slo
from epidote_loadgen.simulate.advice import Advice, advise
from epidote_loadgen.simulate.bound import lower_bound
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.flags import parser
from epidote_loadgen.simulate.named_policies import layout_of, named_policy
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.report import html_report
from epidote_loadgen.simulate.simulation import simulate
from epidote_loadgen.simulate.trace_spec import Trace, open_trace, rates
from epidote_loadgen.traces.bad_rows import TraceError
from epidote_planner.performance import PerformanceProfile


def main(argv: Sequence[str] | None = None) -> int:
    top = parser()
    args = top.parse_args(argv)
    try:
        profile = load_profile(args.profile, startup_s=args.startup)
        slo = Slo(ttft_s=args.ttft, tpot_s=args.tpot, quantile=args.quantile)
        trace = _trace(args)
        if next(trace(), None) is None:
            raise ValueError(
                f"no request arrives between {args.start:g} s and {args.start + args.duration:g} s"
            )
    except ValueError as error:
        top.error(str(error))  # exit status 2
    print(f"configuration: {json.dumps(vars(args), default=str)}", file=sys.stderr)
    try:
        if args.advise:
            return _advise(trace, profile, slo, as_json=args.json)
        return _run(args, trace, profile, slo)
    except TraceError as error:  # a row that breaks late in the trace
        top.error(str(error))


def _run(args: argparse.Namespace, trace: Trace, profile: PerformanceProfile, slo: Slo) -> int:
    layout = layout_of(args.policy)
    initial = coupled(sum(args.initial)) if layout is Layout.COUPLED else split(*args.initial)
    config = SimConfig(
        profile=profile,
        slo=slo,
        layout=layout,
        initial=initial,
        tick_s=args.tick,
        seed=args.seed,
    )
    outcome = simulate(config, named_policy(args.policy, profile, slo, args.tick), trace())
    bound = lower_bound(config, trace(), attainment=outcome.attainment).gpu_seconds
    _show(outcome, bound, as_json=args.json)
    if args.html:
        page = html_report(
            outcome,
            title=f"{args.policy} on {profile.name}",
            configuration=json.dumps(vars(args), default=str),
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


def _show(outcome: Outcome, bound: float, *, as_json: bool) -> None:
    if as_json:
        told = {**outcome.to_json(), "lower_bound_gpu_seconds": bound}
        print(json.dumps(told, allow_nan=False))
        return
    good = outcome.gpu_seconds_per_good
    each = "no request was good" if good is None else f"{good:.3f} per good request"
    print(
        f"attainment {outcome.attainment:.4f} of {outcome.num_requests} requests "
        f"(TTFT {outcome.ttft_attainment:.4f}, TPOT {outcome.tpot_attainment:.4f})\n"
        f"goodput {outcome.goodput_rps:.3f} requests/s\n"
        f"TTFT p50 {outcome.ttft_s['p50']:.3f} s, p99 {outcome.ttft_s['p99']:.3f} s; "
        f"TPOT p50 {outcome.tpot_s['p50']:.4f} s, p99 {outcome.tpot_s['p99']:.4f} s\n"
        f"GPU-seconds {outcome.gpu_seconds:.0f} ({outcome.mean_gpus:.2f} GPUs, "
        f"{each}; no policy could use fewer than "
        f"{bound:.0f})\n"
        f"switches {outcome.num_switches}, starts {outcome.num_starts}, removals "
        f"{outcome.num_removals}, reversals {outcome.num_reversals}, "
        f"regrown {outcome.num_regrown}"
    )


def _advise(trace: Trace, profile: PerformanceProfile, slo: Slo, *, as_json: bool) -> int:
    found = advise(trace, profile, slo)
    if as_json:
        told = {
            "meets_slo": found.is_found,
            "cheapest": ("coupled" if found.is_coupled else "split") if found.is_found else None,
            "encode": found.encode,
            "prefill": found.prefill,
            "decode": found.decode,
            "coupled": found.coupled,
            "attainment": found.outcome.attainment,
            "limit": found.limit,
        }
        print(json.dumps(told, allow_nan=False))
    else:
        print("\n".join(_advice_lines(found)))
    return 0 if found.is_found else 1


def _advice_lines(found: Advice) -> list[str]:
    workers = (
        f"{found.total} workers, {found.encode} encode + {found.prefill} prefill + "
        f"{found.decode} decode; attainment {found.outcome.attainment:.4f}"
    )
    if not found.is_found:
        return [
            "no fleet meets the SLO, with roles or without",
            f"nearest: {workers}",
            f"limit: {found.limit}",
        ]
    if found.is_coupled:
        named = "cheapest split" if found.meets_slo else "no split meets the SLO; nearest"
        return [
            f"cheapest fleet: {_workers(found.coupled)} without roles",
            f"{named}: {workers}",
            f"limit: {found.limit}",
        ]
    without = _workers(found.coupled) if found.coupled else "over three times as many"
    return [f"cheapest fleet: {workers}", f"without roles: {without}", f"limit: {found.limit}"]


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
