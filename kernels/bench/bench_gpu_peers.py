"""What users would pick instead, in the same process on the same inputs, beside what we have.

    python kernels/bench/bench_gpu_peers.py                  # under ten minutes
    python kernels/bench/bench_gpu_peers.py --only kernels   # or, by commas, parts of the engine
    python kernels/bench/bench_gpu_peers.py --device cpu --toy   # that it runs, and nothing else

Attention: torch's SDPA, each backend that takes the shape, and FlashInfer where it is installed.
MoE: compositions around `torch._grouped_mm`. Engine: `transformers` `generate` and continuous
batching with the same random weights. A peer that refuses or is missing is told of, with its words.
The result is written after every line.
"""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from device_limits import conditions, measure_limits, progress
from goals import as_text, peer_goals
from peer_engines import engines, four_pictures, greedy_float32
from peer_kernels import PARTS, compared
from recording import Deadline, DeviceLost, Recording, number_type, parsed, parser, path_of

KERNELS_SHARE = 0.4  # of the time, if engines are to be measured, too
CASE_S = 8.0  # ours, the twin and four peers, one or two of which compile
# parts of the engine and the seconds that they are expected to need
ENGINE = {"engine": 150, "four_pictures": 100, "greedy_float32": 60}


def kernels(
    recording: Recording, device: str, dtype: torch.dtype, deadline: Deadline, *, toy: bool
) -> None:
    """One line per case under "kernels"."""
    recording.put([], "kernels")
    for name, part in PARTS.items():

        def measure_part(part: Callable[..., Any] = part, name: str = name) -> None:
            for case in part(device, dtype, toy=toy):
                if not deadline.leaves(CASE_S):
                    left_out = {"case": name, "left_out": f"no time for {case.case}"}
                    recording.line("kernels", left_out)
                    return
                found = recording.guarded(
                    case.case, lambda case=case: compared(case, device, dtype, toy=toy), device
                )
                recording.line("kernels", {"case": case.case, **found})
                progress(json.dumps(recording.result["kernels"][-1]))

        with torch.inference_mode():
            failed = recording.guarded(name, measure_part, device)
        if failed:
            recording.line("kernels", {"case": name, **failed})


def engine_parts(
    recording: Recording, device: str, dtype: torch.dtype, deadline: Deadline, names: list[str],
    *, toy: bool,
) -> None:  # fmt: skip
    """Each under its own name."""
    runs: dict[str, Callable[[], Any]] = {
        "engine": lambda: engines(device, dtype, toy=toy),
        "four_pictures": lambda: four_pictures(device, dtype, toy=toy),
        "greedy_float32": lambda: greedy_float32(device, toy=toy),
    }
    for name in names:
        needs_s = 0 if toy else ENGINE[name]
        if deadline.leaves(needs_s):
            found = recording.guarded(name, runs[name], device)
        else:
            found = {"left_out": f"less than {needs_s} s were left: run it by --only {name}"}
        recording.put(found, name)
        progress(json.dumps({name: found}, indent=1))
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def main(given: list[str]) -> int:
    """0; 1 if a kernel of ours was wrong, or something of ours failed."""
    arguments = parser(__doc__.splitlines()[0])
    known = ["kernels", *ENGINE]
    arguments.add_argument("--only", default="", metavar="NAMES", help=", ".join(known))
    chosen = parsed(arguments, given)
    names = chosen.only.split(",") if chosen.only else known
    if strange := sorted(set(names) - set(known)):
        arguments.error(f"--only: must be of {', '.join(known)}, got {', '.join(strange)}")
    device, toy, dtype = chosen.device, chosen.toy, number_type(chosen.device)
    deadline = Deadline.after(chosen.minutes)
    torch.manual_seed(0)
    limits = measure_limits(device, dtype, toy=toy)
    result = conditions(device, dtype, limits, toy=toy)
    suffix = f"-peers-{chosen.only}" if chosen.only else "-peers"
    recording = Recording(result, path_of(result, chosen.out, suffix))
    recording.keep()
    parts = [name for name in ENGINE if name in names]
    try:
        if "kernels" in names:
            share = KERNELS_SHARE if parts else 1.0
            ends = Deadline.after(share * chosen.minutes)
            kernels(recording, device, dtype, ends, toy=toy)
        engine_parts(recording, device, dtype, deadline, parts, toy=toy)
    except DeviceLost as lost:
        progress(f"THE DEVICE TAKES NO MORE WORK: {lost}")
    goals = peer_goals(result)
    recording.put([goal.told() for goal in goals], "goals")
    recording.put(recording.failures, "failures")
    progress("\n".join(map(as_text, goals)))
    print(recording.path)
    return int(
        bool(recording.failures) or any("wrong" in line for line in result.get("kernels", []))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
