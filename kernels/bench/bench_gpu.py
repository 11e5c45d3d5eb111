"""Every kernel and the engine on one GPU: correct first, then fast, against limits measured here.

    python kernels/bench/bench_gpu.py                       # under ten minutes; needs no network
    python kernels/bench/bench_gpu.py --only kernels        # or: engine, or parts of it by name
    python kernels/bench/bench_gpu.py --only decode_kv_fp8,decode_kv_int8
    python kernels/bench/bench_gpu.py --device cpu --toy    # that it runs, and nothing else

Prints time, bytes or FLOPs and percent of the limit that the work meets first; writes all of it to
kernels/bench/results/<device>-<date>.json, after every line. Limits are a large copy and a large
matrix product, measured first. What fails is told with its words, what would not end in time is
left out and named, and the rest goes on.
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_ops import Case
from correctness import check
from decode_cases import Variant, decode_steps
from device_limits import Limits, conditions, measure_limits, progress, seconds
from engine_cases import mixed_load, pictures, role_switches
from goals import as_text as goal_text
from goals import engine_goals, kernel_goals
from kernel_cases import groups
from recording import Deadline, DeviceLost, Recording, number_type, parsed, parser, path_of
from vision_cases import compiled_tower

from epidote_kernels.reference import gathered

KERNELS_SHARE = 0.4  # of the time, if the engine is to be measured, too
CASE_S = 4.0  # to compile an op, run its twin and measure for a tenth of a second
TRANSFERS_S = 240.0  # it is done in 40 s; what hangs must not take the rest with it
# the engine's parts and the seconds that they are expected to need, most important first
PARTS = {
    "decode": 90,
    "mixed_load": 120,
    "pictures": 40,
    "decode_kv_fp8": 60,
    "decode_int8": 60,
    "transfers": 60,
    "role_switches": 60,
    "decode_experts": 60,
    "compiled_tower": 45,
    "decode_kv_int8": 60,
}


def kernels(
    recording: Recording, device: str, dtype: torch.dtype, limits: Limits, deadline: Deadline,
    *, toy: bool,
) -> None:  # fmt: skip
    """One line per op and size under "kernels". A wrong result has no time."""
    recording.put([], "kernels")
    for name, made in groups(device, dtype, toy=toy).items():

        def measure_group(made: Callable[[], Any] = made, name: str = name) -> None:
            for case in made():
                if not deadline.leaves(CASE_S):
                    recording.line("kernels", {"op": name, "left_out": f"no time for {case.name}"})
                    return
                line: dict[str, Any] = {"op": case.name, "bytes": case.num_bytes}
                line |= {"flops": case.flops}
                line |= recording.guarded(
                    case.name, lambda case=case: timed(case, device, dtype, limits, toy=toy), device
                )
                recording.line("kernels", line)
                progress(_as_text(line))

        with torch.inference_mode():
            failed = recording.guarded(name, measure_group, device)
        if failed:  # inputs that could not be made: the group's other cases are lost
            recording.line("kernels", {"op": name, **failed})
            progress(_as_text({"op": name, **failed}))
        free(device)
    gathered.forget()  # what twins keep is gigabytes, which the engine would not find free


def timed(
    case: Case, device: str, dtype: torch.dtype, limits: Limits, *, toy: bool
) -> dict[str, Any]:
    """What there is to say of one case: {"wrong": …}, or its figures."""
    try:
        wrong = check(case, dtype)
        unchecked = ""
    except torch.cuda.OutOfMemoryError:  # twins take more memory than kernels
        wrong, unchecked = "", "no memory for the twin"
        free(device)
    if wrong:
        return {"wrong": wrong}
    time_s = seconds(case.run, device, toy=toy)
    floor_s = limits.floor_s(case.num_bytes, case.flops)
    is_bytes = case.num_bytes / limits.copy_bytes_per_s == floor_s
    return {
        "time_s": time_s,
        "floor_s": floor_s,
        "bound": "bytes" if is_bytes else "flops",
        "percent_of_limit": 100 * floor_s / time_s,
        **({"unchecked": unchecked} if unchecked else {}),
    }


def free(device: str) -> None:
    """Give back what nothing holds any more; an engine and its parts know each other."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _as_text(line: dict[str, Any]) -> str:
    for what in ("wrong", "failed", "left_out"):
        if what in line:
            return f"{line['op']:52s} {what.upper()}: {line[what]}"
    return (
        f"{line['op']:52s} {line['time_s'] * 1e6:10.1f} µs "
        f"{line['bytes'] / line['time_s'] / 1e9:8.1f} GB/s "
        f"{line['flops'] / line['time_s'] / 1e12:7.2f} TFLOP/s "
        f"{line['percent_of_limit']:6.1f} % of {line['bound']}"
        + (f"  UNCHECKED: {line['unchecked']}" if "unchecked" in line else "")
    )


def engine(
    recording: Recording, device: str, limits: Limits, deadline: Deadline, names: list[str],
    *, toy: bool,
) -> None:  # fmt: skip
    """The engine's parts of these names under "engine", until the time is up."""
    recording.put({}, "engine")
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)

        def decode(variant: Variant) -> Callable[[], Any]:
            return lambda: decode_steps(at, device, limits, variant, toy=toy)

        runs: dict[str, Callable[[], Any]] = {
            "decode": decode(Variant()),
            "mixed_load": lambda: mixed_load(at, device, toy=toy),
            "pictures": lambda: pictures(at, device, toy=toy),
            "decode_kv_fp8": decode(Variant(kv_cache_dtype="fp8")),
            "decode_int8": decode(Variant(quantization="int8")),
            "transfers": lambda: transfers(at, device, toy=toy),
            "role_switches": lambda: role_switches(at, device, toy=toy),
            "decode_experts": decode(Variant(has_experts=True)),
            "compiled_tower": lambda: compiled_tower(at, device, toy=toy),
            "decode_kv_int8": decode(Variant(kv_cache_dtype="int8")),
        }
        for name in names:
            needs_s = 0 if toy else PARTS[name]
            if not deadline.leaves(needs_s):
                left_out = f"less than {needs_s} s were left: run it by --only {name}"
                recording.put({"left_out": left_out}, "engine", name)
                progress(f"engine: {name} LEFT OUT: {left_out}")
                continue
            progress(f"engine: {name}")
            start_s = time.monotonic()
            found = recording.guarded(name, runs[name], device)
            recording.put(found, "engine", name)
            recording.put(time.monotonic() - start_s, "took_s", name)
            progress(json.dumps(found, indent=1))
            free(device)


def transfers(folder: Path, device: str, *, toy: bool) -> list[dict[str, Any]]:
    """GB/s of every transport, measured by `bench_transfers.py` in a process of its own: it joins
    a Ray cluster, which this one must not."""
    out = folder / "transfers.json"
    command = [sys.executable, str(Path(__file__).parent / "bench_transfers.py")]
    command += ["--device", device, "--out", str(out), *(["--toy", "--no-ray"] if toy else [])]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=TRANSFERS_S, check=False)
    if not out.exists():
        return [{"transport": "any", "refused": f"bench_transfers.py ended with {done.returncode}"}]
    found: list[dict[str, Any]] = json.loads(out.read_text())["transfers"]
    return found


def chosen_parts(only: str) -> tuple[bool, list[str]]:
    """Whether the kernels are measured, and which parts of the engine.

    >>> chosen_parts("kernels"), chosen_parts("pictures,decode")
    ((True, []), (False, ['decode', 'pictures']))

    Raises:
        ValueError: a name that is none.
    """
    names = [name for name in only.split(",") if name]
    known = ["kernels", "engine", *PARTS]
    if strange := sorted(set(names) - set(known)):
        raise ValueError(f"--only: must be of {', '.join(known)}, got {', '.join(strange)}")
    everything = not names
    with_kernels = everything or "kernels" in names
    with_engine = everything or "engine" in names
    return with_kernels, [name for name in PARTS if with_engine or name in names]


def main(given: list[str]) -> int:
    """0; 1 if a kernel was wrong, or something failed."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--only", default="", metavar="NAMES",
        help=f"kernels, engine or, by commas, its parts: {', '.join(PARTS)}",
    )  # fmt: skip
    chosen = parsed(arguments, given)
    try:
        with_kernels, parts = chosen_parts(chosen.only)
    except ValueError as unknown:
        arguments.error(str(unknown))
    device, toy = chosen.device, chosen.toy
    deadline = Deadline.after(chosen.minutes)
    torch.manual_seed(0)
    dtype = number_type(device)
    limits = measure_limits(device, dtype, toy=toy)
    result = conditions(device, dtype, limits, toy=toy)
    suffix = f"-{chosen.only}" if chosen.only else ""
    recording = Recording(result, path_of(result, chosen.out, suffix))
    recording.keep()
    progress(json.dumps(result, indent=1))
    try:
        if with_kernels:
            share = KERNELS_SHARE if parts else 1.0
            ends = Deadline.after(share * chosen.minutes)
            kernels(recording, device, dtype, limits, ends, toy=toy)
        if parts:
            engine(recording, device, limits, deadline, parts, toy=toy)
    except DeviceLost as lost:
        progress(f"THE DEVICE TAKES NO MORE WORK: {lost}")
    goals = kernel_goals(result.get("kernels", [])) if with_kernels else []
    goals += engine_goals(result.get("engine", {})) if parts else []
    recording.put([goal.told() for goal in goals], "goals")
    recording.put(recording.failures, "failures")
    progress("\n".join(map(goal_text, goals)))
    print(recording.path)
    return int(
        bool(recording.failures) or any("wrong" in line for line in result.get("kernels", []))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
