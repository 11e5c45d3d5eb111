"""The pace: are sends distributed as asked, how late are they, what does a request cost?

    python loadgen/bench/pace.py --rps 500 2000 --seconds 20 --results loadgen/bench/pace.json

Prints, for each rate, the Kolmogorov-Smirnov distance between the gaps of the actual sends and the
exponential distribution, the same for the planned gaps, the 5 % thresholds, lateness, and CPU time
of all our processes a request.

A send that is late for reasons of its own leaves a Poisson process one (displaced independently,
its points are still Poisson; Kingman, 1993, 5.5). What the test sees is sends that are late
together: each stall of a millisecond sends two requests at once at 2,000/s. So `held_up` is told
beside it: of the time of a process that only spins, right before the run and at the same priority,
the share by which a send would have been more than 0.1 ms late. No sender can do better, and over
0.007 the test at 2,000/s can't be passed. `--realtime` gives the senders real-time priority, as
`limits.realtime` does.
"""  # noqa: INP001

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.measures.kolmogorov import ks_p_value, ks_statistic, ks_threshold
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.process import mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.runner.running import run
from epidote_loadgen.runner.self_watch import own_lateness_s
from epidote_loadgen.slo import SloTable

SAMPLE = 1000  # gaps of the second test: as many as a person would look at


LATE_S = 100e-6
# In strokes: Linux brakes a real-time spinner that leaves ordinary work nothing at all.
STROKES, STROKE_S, REST_S = 200, 0.02, 0.005


def held_up() -> float:
    """Share of the moments at which a send would have been over `LATE_S` late, in [0, 1]."""
    lost_s = spun_s = 0.0
    for _ in range(STROKES):
        time.sleep(REST_S)
        begun_s = last_s = time.monotonic()
        while last_s < begun_s + STROKE_S:
            now_s = time.monotonic()
            lost_s += max(0.0, now_s - last_s - LATE_S)
            last_s = now_s
        spun_s += last_s - begun_s
    return lost_s / spun_s


def held_up_at(*, realtime: bool) -> float:
    """The same, in real time if wished. Raises PermissionError: not allowed here."""
    if not realtime:
        return held_up()
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        return held_up()
    finally:
        os.sched_setscheduler(0, *before)


def pace(
    url: str, rps: float, seconds: float, processes: int | None, *, realtime: bool
) -> dict[str, Any]:
    spinner_held_up = held_up_at(realtime=realtime)
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(rps), duration_s=seconds)
    result = run(
        RunPlan(
            target=Target(url=url),
            arrivals=OpenLoop(streams=(stream,), seed=1),
            workload=SameRequest(),
            slo=SloTable(classes=()),
            limits=Limits(max_lateness_s=1.0, realtime=realtime),
            num_processes=processes,
        )
    )
    sent = np.sort([r.sent_s - r.connect_s for r in result.records if r.sent_s is not None])
    late = np.array([late_s for r in result.records if (late_s := own_lateness_s(r)) is not None])
    # Of those that were sent: on a crowded machine some find no connection in time.
    planned = np.sort([r.intended_send_s for r in result.records if r.sent_s is not None])

    def distance(times: Any) -> tuple[float, float, float]:
        gaps = np.diff(times)
        found = ks_statistic(gaps, lambda gap: 1.0 - np.exp(-rps * gap))
        return found, ks_threshold(len(gaps)), ks_p_value(found, len(gaps))

    gaps = np.diff(sent)
    part = np.random.default_rng(1).choice(gaps, min(SAMPLE, len(gaps)), replace=False)
    part_ks = ks_statistic(part, lambda gap: 1.0 - np.exp(-rps * gap))
    # Given their number, a Poisson process' times are uniform: the slow test of the same.
    arrival_ks = ks_statistic(sent / seconds, lambda x: np.clip(x, 0.0, 1.0))
    watch = result.self_watch
    return {
        "rps": rps,
        "processes": watch.num_processes,
        "realtime": realtime,
        "requests": len(result.records),
        "ok": sum(r.ok for r in result.records),
        "ks_sent": distance(sent),
        "ks_planned": distance(planned),
        f"ks_sent_of_{SAMPLE}": (part_ks, ks_threshold(len(part)), ks_p_value(part_ks, len(part))),
        "ks_times": (arrival_ks, ks_threshold(len(sent)), ks_p_value(arrival_ks, len(sent))),
        "gap_shift_us": 1e6 * float(np.abs(np.diff(sent) - np.diff(planned)).mean()),
        "spinner_held_up": spinner_held_up,
        "late_by_over_100_us": float(np.mean(late > LATE_S)),
        "lateness_p50_ms": 1000 * watch.lateness_p50_s,
        "lateness_p99_ms": 1000 * watch.lateness_p99_s,
        "lateness_max_ms": 1000 * watch.lateness_max_s,
        "cpu_ms_per_request": 1000 * watch.cpu_s / len(result.records),
        "cpu_utilization": watch.cpu_utilization,
        "cpu_wait_ratio": watch.cpu_wait_ratio,
        "retries": watch.num_retries,
        "load": os.getloadavg(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rps", type=float, nargs="+", default=[500.0, 2000.0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[None], help="default: by the rate"
    )
    parser.add_argument("--tokens", type=int, default=2, help="of each reply")
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--results", type=Path, help="a file to write all figures to")
    args = parser.parse_args()
    law = LatencyLaw(ttft_s=0.05, itl_s=0.02)
    found = []
    with mock_process(MockSettings(law=law, num_tokens=args.tokens)) as url:
        for rps in args.rps:
            for processes in args.processes:
                found.append(pace(url, rps, args.seconds, processes, realtime=args.realtime))
                print(json.dumps(found[-1]), flush=True)
    if args.results:
        args.results.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
