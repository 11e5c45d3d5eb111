"""How many requests a minute of one core's time the simulator plays.

    python loadgen/bench/simulator_speed.py [--data DATA]

Processor time, so that a busy machine does not hide the figure. Without data: Poisson arrivals.
"""  # noqa: INP001

import argparse
from pathlib import Path
from time import process_time

from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import Layout, SimConfig, coupled, split
from epidote_loadgen.simulate.policy import nothing, planner
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.simulation import simulate
from epidote_loadgen.simulate.trace_spec import rates
from epidote_loadgen.simulate.traces import servegen
from epidote_planner.policy import PlannerPolicy

PROFILE = load_profile("internvl2-26b-a100")
SLO = Slo(ttft_s=5.0, tpot_s=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    trace = rates(
        rps=9.0,
        text_tokens=500,
        output_tokens=130,
        images=1,
        image_tokens=576,
        duration_s=3600.0,
        seed=0,
    )
    if args.data:
        day = args.data / "servegen" / "mm_image_1day_generated.csv.gz"
        trace = lambda: servegen(day, end_s=3600.0)  # noqa: E731
    for name, layout, initial, policy in (
        ("static split", Layout.SPLIT, split(4, 5, 2), nothing),
        ("coupled", Layout.COUPLED, coupled(16), nothing),
        (
            "planner every 10 s",
            Layout.SPLIT,
            split(4, 5, 2),
            planner(PlannerPolicy(profile=PROFILE, slo=SLO)),
        ),
    ):
        config = SimConfig(profile=PROFILE, slo=SLO, layout=layout, initial=initial)
        began = process_time()
        count = simulate(config, policy, trace()).num_requests
        took_s = process_time() - began
        print(f"{name:20} {count} requests in {took_s:.2f} s: {count / took_s * 60:,.0f} a minute")


if __name__ == "__main__":
    main()
