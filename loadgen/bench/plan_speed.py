"""How long one plan takes, from ten workers to ten thousand.

python loadgen/bench/plan_speed.py
"""  # noqa: INP001

import argparse
import gc
import json
from dataclasses import replace
from math import log2
from statistics import median
from time import process_time

from epidote_core.roles import Role
from epidote_planner.fakes import PretendCluster, image_traffic, policy, snapshot
from epidote_planner.planner import plan

SIZES = (10, 100, 1_000, 3_000, 10_000)
RPS_PER_WORKER = 2.2  # of the pretend profile: sizes are approximate
LIMITS_S = {1_000: 0.05, 10_000: 1.0}


def seconds(rps: float, change: float, repeats: int) -> tuple[int, float]:
    """Workers of the fixed point at `rps`, and the time of a plan when the load then changes."""
    cluster = PretendCluster(policy=policy())
    cluster.run(45, image_traffic(rps))
    memory = cluster.memory
    if change < 1.0 and memory is not None:  # the shrink window has passed: remove at once
        memory = replace(memory, pool_needs=(), pool_need=None)
    seen = snapshot(cluster.now_s + 10.0, cluster.fleet, (image_traffic(rps * change),))
    times = []
    for _ in range(repeats):
        gc.collect()
        began = process_time()
        plan(seen, cluster.policy, memory)
        times.append(process_time() - began)
    return sum(w.role in Role for w in cluster.fleet), median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows = []
    for size in SIZES:
        for change in (1.0, 1.3, 0.5):
            workers, took_s = seconds(size * RPS_PER_WORKER, change, args.repeats)
            rows.append({"workers": workers, "change": change, "seconds": took_s})
            unit = took_s / (workers * log2(max(2, workers))) * 1e9
            if not args.json:
                print(
                    f"{workers:6d} workers, load x{change:<4} {took_s * 1000:9.3f} ms   "
                    f"{unit:7.1f} ns / (n log2 n)",
                    flush=True,
                )
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
