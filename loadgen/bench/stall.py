"""The stall experiment: 40 requests/s for 30 s, the server stalls for 5 s, SLO TTFT <= 1 s.

    python loadgen/bench/stall.py

Reports attainment as we report it, as a clock that starts at the dispatch would, as the server
itself served it (from the intended sends), and as its law says. Three runs side by side: without a
limit, with at most 20 requests in flight, and with 12 connections.
"""  # noqa: INP001

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.mock_server.law import LatencyLaw, Stall, true_attainment
from epidote_loadgen.mock_server.process import ask, mock_process
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.plan import Limits, RunPlan, Target
from epidote_loadgen.runner.running import run
from epidote_loadgen.slo import Objective, SloClass, SloTable
from epidote_loadgen.verdict.verdict import judge

LAW = LatencyLaw(ttft_s=0.01, itl_s=0.002, stalls=(Stall(12.0, 5.0),))
TTFT_S = 1.0
SLO = SloTable(classes=(SloClass(name="all", objectives=(Objective(ttft_s=TTFT_S),)),))


def experiment(name: str, limits: Limits, seed: int) -> dict[str, Any]:
    with mock_process(MockSettings(law=LAW, num_tokens=4)) as url:
        stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(40.0), duration_s=30.0)
        result = run(
            RunPlan(
                target=Target(url=url),
                arrivals=OpenLoop(streams=(stream,), seed=seed),
                workload=SameRequest(),
                slo=SLO,
                limits=limits,
                seed=seed,
            )
        )
        truth = ask(url, "GET", "/mock/truth")
    start_s = result.started_at_unix_s + time.monotonic() - time.time() - truth["start_s"]
    intended = {f"run-{seed}-{r.index}": start_s + r.intended_send_s for r in result.records}
    served = [
        (s["first_token_s"] or math.inf) - intended[s["key"]] <= TTFT_S for s in truth["served"]
    ]
    records = result.records
    verdict = judge(records, SLO, void_reason=result.void_reason)
    dispatched = [(r.ttft_s or math.inf) - (r.lateness_s or 0.0) <= TTFT_S for r in records]
    return {
        "client": name,
        "requests": len(records),
        "reported": verdict.objectives[0].attainment,
        "served": sum(served) / len(records),
        "law": true_attainment(LAW, [(at, key) for key, at in intended.items()], ttft_s=TTFT_S),
        "from_dispatch": sum(dispatched) / len(records),
        "verdict": verdict.outcome.value,
        "exit_code": int(verdict.exit_code),
        "lateness_p99_ms": 1000 * result.self_watch.lateness_p99_s,
        "void": result.void_reason,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    generous = Limits(max_lateness_s=0.25)
    situations = {
        "no limit": generous,
        "20 in flight": replace(generous, max_in_flight=20),
        "12 connections": replace(generous, max_connections=12),
    }
    with ThreadPoolExecutor(len(situations)) as pool:
        for found in pool.map(lambda item: experiment(*item, seed), situations.items()):
            print(json.dumps(found))


if __name__ == "__main__":
    main()
