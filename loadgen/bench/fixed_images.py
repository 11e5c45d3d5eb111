"""Goodput with a fixed number of images a request, on eight GPUs.

    python loadgen/bench/fixed_images.py

EPDServe's limits for MiniCPM-V 2.6 (2 images: TTFT 1.40 s, TPOT 0.04 s; 4 images: 2.60 s, 0.04 s),
Poisson arrivals, 22 text tokens, 1,200 requests a rate. Goodput: the highest rate at which 90 % of
the requests meet both limits. The policies that switch roles start from 6E1P1D.
"""  # noqa: INP001

import argparse
import json
from collections.abc import Iterator
from random import Random

from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.policy import Policy, nothing, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.rivals.elasticmm import ElasticRules, elastic_rules
from epidote_loadgen.simulate.rivals.epdserve import LongestQueue, longest_queue
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.simulation import simulate
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy

PROFILE = load_profile("minicpm-v-2.6-a100")
LIMITS = {
    2: Slo(ttft_s=1.4, tpot_s=0.04, quantile=0.9),
    4: Slo(ttft_s=2.6, tpot_s=0.04, quantile=0.9),
}
NUM_REQUESTS = 1200
STEP_RPS = 0.05
System = tuple[Layout, dict[Lane, int], Policy]


def trace(images: int, rps: float, output: int, seed: int = 0) -> Iterator[SimRequest]:
    random = Random(seed)
    now_s = 0.0
    for _ in range(NUM_REQUESTS):
        now_s += random.expovariate(rps)
        yield SimRequest(now_s, 22, output, (640,) * images)


def systems(slo: Slo) -> dict[str, System]:
    ours = PlannerPolicy(profile=PROFILE, slo=slo, fixed_pool=True, tick_s=2.0)  # its defaults
    two_stages = {lane: n for lane, n in split(0, 7, 1).items() if n}
    return {
        "monolith, 8 workers": (Layout.COUPLED, coupled(8), nothing),
        "prefill/decode 7P1D": (Layout.TWO_STAGE, two_stages, nothing),
        "static 6E1P1D": (Layout.SPLIT, split(6, 1, 1), nothing),
        "static 5E2P1D": (Layout.SPLIT, split(5, 2, 1), nothing),
        "EPDServe's longest queue": (Layout.SPLIT, split(6, 1, 1), longest_queue(LongestQueue())),
        "ElasticMM's rules": (
            Layout.SPLIT,
            split(6, 1, 1),
            elastic_rules(ElasticRules(profile=PROFILE)),
        ),
        "Epidote": (Layout.SPLIT, split(6, 1, 1), planner(ours)),
    }


def attainment(system: System, images: int, rps: float, output: int) -> float:
    layout, initial, policy = system
    config = SimConfig(
        profile=PROFILE, slo=LIMITS[images], layout=layout, initial=initial, tick_s=2.0
    )
    return simulate(config, policy, trace(images, rps, output)).attainment


def goodput(system: System, images: int, output: int) -> float:
    """Bisection on a grid of `STEP_RPS`; 0 if even the lowest rate fails."""
    low, high = 0, 400
    while high - low > 1:
        middle = (low + high) // 2
        if attainment(system, images, middle * STEP_RPS, output) >= 0.9:
            low = middle
        else:
            high = middle
    return low * STEP_RPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-tokens", type=int, nargs="*", default=[10, 50])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for images, slo in LIMITS.items():
        for output in args.output_tokens:
            for name, system in systems(slo).items():
                rate = goodput(system, images, output)
                rows.append(
                    {"images": images, "output": output, "system": name, "goodput_rps": rate}
                )
                if not args.json:
                    print(
                        f"{images} images, {output:3d} output tokens  {name:26} {rate:6.2f}",
                        flush=True,
                    )
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
