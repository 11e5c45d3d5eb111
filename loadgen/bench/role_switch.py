"""Role switching against a static split, in the set-up that EPDServe published.

    python loadgen/bench/role_switch.py

One 4K image a request, 3 requests/s, 10 requests with 50 output tokens and then 90 with 500,
eight GPUs that start as 5E1P2D (arXiv 2501.05460, role-switching experiment).
"""  # noqa: INP001

import argparse
import json
from collections.abc import Iterator
from random import Random

from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import SimConfig, split
from epidote_loadgen.simulate.outcome import Outcome
from epidote_loadgen.simulate.policy import Policy, nothing, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.rivals.elasticmm import ElasticRules, elastic_rules
from epidote_loadgen.simulate.rivals.epdserve import LongestQueue, longest_queue
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_planner.policy import PlannerPolicy

PROFILE = load_profile("minicpm-v-2.6-a100")
SLO = Slo(ttft_s=1.4, tpot_s=0.04, quantile=0.9)  # the paper's limits at two images
RATE_RPS = 3.0
PUBLISHED = {"static": (61.1, 0.12), "switching": (28.0, 0.05)}


def trace(seed: int) -> Iterator[SimRequest]:
    random = Random(seed)
    now_s = 0.0
    for index in range(100):
        now_s += random.expovariate(RATE_RPS)
        yield SimRequest(now_s, 22, 50 if index < 10 else 500, (640,))


def policies() -> dict[str, Policy]:
    ours = PlannerPolicy(profile=PROFILE, slo=SLO, fixed_pool=True, tick_s=1.0)  # its defaults
    return {
        "static 5E1P2D": nothing,
        "EPDServe's longest queue": longest_queue(LongestQueue()),
        "EPDServe's, running counted": longest_queue(LongestQueue(count_running=True)),
        "ElasticMM's rules": elastic_rules(ElasticRules(profile=PROFILE)),
        "Epidote": planner(ours),
    }


def run(policy: Policy, seed: int) -> Outcome:
    config = SimConfig(profile=PROFILE, slo=SLO, initial=split(5, 1, 2), tick_s=1.0)
    return simulate(config, policy, trace(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {}
    for name, policy in policies().items():
        outcomes = [run(policy, seed) for seed in range(args.seeds)]
        rows[name] = {
            "e2e_s": sum(o.e2e_s["mean"] for o in outcomes) / len(outcomes),
            "tpot_s": sum(o.tpot_s["mean"] for o in outcomes) / len(outcomes),
            "ttft_s": sum(o.ttft_s["mean"] for o in outcomes) / len(outcomes),
            "switches": sum(o.num_switches for o in outcomes) / len(outcomes),
            "end": str(dict(outcomes[0].moments[-1].workers)),
        }
    static = rows["static 5E1P2D"]
    for row in rows.values():
        row["latency_gain"] = static["e2e_s"] / row["e2e_s"]
        row["tpot_gain"] = static["tpot_s"] / row["tpot_s"]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"published: {PUBLISHED} = 2.2x lower latency, 2.4x lower TPOT")
    for name, row in rows.items():
        print(
            f"{name:30} e2e {row['e2e_s']:6.2f} s ({row['latency_gain']:.2f}x)  "
            f"TPOT {row['tpot_s']:.4f} s ({row['tpot_gain']:.2f}x)  TTFT {row['ttft_s']:.2f} s  "
            f"switches {row['switches']:.1f}  end {row['end']}"
        )


if __name__ == "__main__":
    main()
