"""Many streams at once: one client process and one mock server, a core each.

    python loadgen/bench/streams.py --streams 5000

A closed loop of as many users as streams, each reply `--tokens` tokens long at `--itl` seconds, so
that all of them stream at the same time. Prints how many were open at once (as the server counted
them too), how far the gaps were from what the law says, and what an event cost.
"""  # noqa: INP001

import argparse
import json
import os

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.measures.summary import TOTAL, summarise
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.process import ask, mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.runner.running import run
from epidote_loadgen.slo import SloTable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--itl", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    law = LatencyLaw(ttft_s=1.0, itl_s=args.itl)
    with mock_process(MockSettings(law=law, num_tokens=args.tokens)) as url:
        result = run(
            RunPlan(
                target=Target(url=url),
                arrivals=ClosedLoop(
                    weights={"chat": 1.0},
                    num_users=args.streams,
                    num_requests=args.streams,
                    ramp_s=5.0,
                ),
                workload=SameRequest(),
                slo=SloTable(classes=()),
                limits=Limits(max_lateness_s=1.0),
                num_processes=args.processes,
            )
        )
        truth = ask(url, "GET", "/mock/truth")
    total = summarise(result.records, SloTable(classes=()))[TOTAL]
    watch = result.self_watch
    print(
        json.dumps(
            {
                "streams": args.streams,
                "processes": args.processes,
                "ok": total.num_ok,
                "open_at_once_client": watch.max_in_flight,
                "open_at_once_server": truth["max_open"],
                "events": total.output_tokens,
                "seconds": result.duration_s,
                "itl_asked_s": args.itl,
                "itl_p50_s": total.itl.quantile(0.5),
                "itl_p99_s": total.itl.quantile(0.99),
                "loop_lag_p99_ms": 1000 * watch.loop_lag_p99_s,
                "client_cpu_s": watch.cpu_s,
                "client_cpu_utilization": watch.cpu_utilization,
                "cpu_us_per_event": 1e6 * watch.cpu_s / max(1, total.output_tokens),
                "void": result.void_reason,
                "load": os.getloadavg(),
            }
        )
    )


if __name__ == "__main__":
    main()
