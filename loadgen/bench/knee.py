"""The sweep against a mock server of known capacity: is the knee found within 5 %?

    python loadgen/bench/knee.py --capacity 100

The truth is computed from the server's law (a queue with one server): the highest rate at which
`--ratio` of 200,000 Poisson arrivals get their first token within `--ttft`.
"""  # noqa: INP001

import argparse
import json
import time

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.arrivals.spacing import Poisson, send_times
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.mock_server.law import LatencyLaw, true_attainment
from epidote_loadgen.mock_server.process import mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.search.sweep import Probe, SweepSettings, sweep
from epidote_loadgen.slo import Objective, SloClass, SloTable

NUM_ARRIVALS = 200_000


def true_knee(law: LatencyLaw, *, ttft_s: float, ratio: float) -> float:
    """Bisection on the law itself."""
    low, high = 0.2 * law.capacity_rps, 1.2 * law.capacity_rps
    while high / low > 1.002:
        middle = (low + high) / 2
        times = send_times(Poisson(), constant(middle), seed=9, num_requests=NUM_ARRIVALS)
        held = true_attainment(law, ((at_s, "") for at_s in times), ttft_s=ttft_s) >= ratio
        low, high = (middle, high) if held else (low, middle)
    return low


def tell(probe: Probe) -> None:
    print(
        f"  {probe.rps:8.2f}/s {'held' if probe.held else 'lost'} {probe.end} "
        f"{probe.attainment:.4f} in {probe.duration_s:.1f} s, cooled {probe.cool_down_s:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capacity", type=float, default=100.0)
    parser.add_argument("--ttft", type=float, default=0.5)
    parser.add_argument("--ratio", type=float, default=0.95)
    parser.add_argument("--start", type=float, default=20.0)
    parser.add_argument("--probe", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    law = LatencyLaw(ttft_s=0.02, itl_s=0.002, capacity_rps=args.capacity)
    objective = Objective(ttft_s=args.ttft, ratio=args.ratio)
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(args.start), duration_s=1.0)
    begun_s = time.monotonic()
    with mock_process(MockSettings(law=law, num_tokens=4)) as url:
        found = sweep(
            RunPlan(
                target=Target(url=url),
                arrivals=OpenLoop(streams=(stream,)),
                workload=SameRequest(),
                slo=SloTable(classes=(SloClass(name="all", objectives=(objective,)),)),
                limits=Limits(max_lateness_s=0.25),
                seed=args.seed,
            ),
            SweepSettings(start_rps=args.start, probe_s=args.probe, tolerance=0.04),
            on_probe=tell,
        )
    truth = true_knee(law, ttft_s=args.ttft, ratio=args.ratio)
    print(
        json.dumps(
            {
                "found_rps": found.max_goodput_rps,
                "high_rps": found.high_rps,
                "true_rps": truth,
                "capacity_rps": args.capacity,
                "error": found.max_goodput_rps / truth - 1.0,
                "probes": len(found.probes),
                "seconds": time.monotonic() - begun_s,
                "reason": found.reason,
            }
        )
    )


if __name__ == "__main__":
    main()
