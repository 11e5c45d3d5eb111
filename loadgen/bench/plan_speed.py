"""How long one plan takes, from ten workers to ten thousand; fails where one is over its limit.

The loads change by a factor, or images stop and text takes over: then nearly all workers switch.

python loadgen/bench/plan_speed.py
"""  # noqa: INP001

import argparse
import gc
import json
from dataclasses import replace
from math import log2
from statistics import median
from time import process_time

from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    snapshot,
    text_traffic,
    workers,
)
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot

SIZES = (10, 100, 1_000, 3_000, 10_000)
RPS_PER_WORKER = 2.2  # of the pretend profile: sizes are approximate
LIMITS_S = {1_000: 0.05, 10_000: 1.0}  # up to so many workers
TEXT_RPS_PER_WORKER = 20.0


def took_s(seen: ClusterSnapshot, rules: PlannerPolicy, memory: PlannerMemory | None) -> float:
    gc.collect()
    began = process_time()
    plan(seen, rules, memory)
    return process_time() - began


def seconds(rps: float, change: float, repeats: int) -> tuple[int, float]:
    """Workers of the fixed point at `rps`, and the time of a plan when the load then changes."""
    cluster = PretendCluster(policy=policy())
    cluster.run(45, image_traffic(rps))
    memory = cluster.memory
    if change < 1.0 and memory is not None:  # the shrink window has passed: remove at once
        memory = replace(memory, pool_needs=(), pool_need=None, pool_steady=None)
    seen = snapshot(cluster.now_s + 10.0, cluster.fleet, (image_traffic(rps * change),))
    times = [took_s(seen, cluster.policy, memory) for _ in range(repeats)]
    return len(cluster.fleet), median(times)


def switching_seconds(size: int, repeats: int) -> tuple[int, float]:
    """The time of a plan that turns `size` encoders to text: all of them but one switch."""
    fleet = tuple(replace(w, num_running=i % 7) for i, w in enumerate(workers(size, 0, 0)))
    seen = snapshot(10.0, fleet, (text_traffic(size * TEXT_RPS_PER_WORKER),))
    rules = policy(fixed_pool=True)
    return size, median(took_s(seen, rules, None) for _ in range(repeats))


def over_limit(num_workers: int, seconds_taken: float) -> bool:
    """Whether a plan took longer than the smallest limit that covers so many workers."""
    limits = [limit_s for most, limit_s in sorted(LIMITS_S.items()) if num_workers <= most]
    return bool(limits) and seconds_taken > limits[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows: list[dict[str, float | str]] = []
    slow = []
    for size in SIZES:
        measured = [
            (f"load x{change}", *seconds(size * RPS_PER_WORKER, change, args.repeats))
            for change in (1.0, 1.3, 0.5)
        ]
        measured.append(("all switch", *switching_seconds(size, args.repeats)))
        for change, count, taken_s in measured:
            rows.append({"workers": count, "change": change, "seconds": taken_s})
            line = f"{count:6d} workers, {change:<10} {taken_s * 1000:9.3f} ms"
            unit = taken_s / (count * log2(max(2, count))) * 1e9
            if over_limit(count, taken_s):
                slow.append(line)
            if not args.json:
                print(f"{line}   {unit:7.1f} ns / (n log2 n)", flush=True)
    if args.json:
        print(json.dumps(rows))
    if slow:
        raise SystemExit("over the limit:\n" + "\n".join(slow))


if __name__ == "__main__":
    main()
