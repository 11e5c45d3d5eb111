"""Every kernel and the engine on one GPU: correct first, then fast, against limits measured here.

    python kernels/bench/bench_gpu.py                       # under ten minutes; needs no network
    python kernels/bench/bench_gpu.py --only kernels        # or: engine
    python kernels/bench/bench_gpu.py --device cpu --toy    # that it runs, and nothing else

Prints time, bytes or FLOPs and percent of the limit that the work meets first; writes all of it to
kernels/bench/results/<device>-<date>.json. Limits are a large copy and a large matrix product,
measured first. A part that would not end in time is left out, and the result says so.
"""

import argparse
import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_ops import Case
from decode_cases import Variant, decode_steps
from device_limits import Limits, conditions, measure_limits, progress, seconds
from engine_cases import mixed_load, pictures, role_switches
from goals import as_text as goal_text
from goals import engine_goals, kernel_goals
from kernel_cases import every_case
from vision_cases import compiled_tower

TRANSFERS_S = 240.0  # it is done in 40 s; what hangs must not take the rest with it
# a kernel's error beside its twin on the same inputs, relative to the twin's norm
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}


def relative_error(got: Any, want: Any) -> float:
    """The largest ‖got − want‖ / ‖want‖ of tensors in nested tuples; NaN counts as infinite."""
    if isinstance(want, tuple):
        return max(relative_error(a, b) for a, b in zip(got, want, strict=True))
    if not isinstance(want, torch.Tensor):
        return 0.0  # works in place: checked by the tests
    wide = want.double()
    norm = float(torch.linalg.vector_norm(wide))
    error = float(torch.linalg.vector_norm(got.double() - wide)) / max(norm, 1e-30)
    return error if error == error else float("inf")


def check(case: Case, dtype: torch.dtype) -> str:
    """ "" if kernel and twin agree; else what is wrong."""
    if case.name.startswith("sample_tokens"):
        same = (case.run() == case.twin()).double().mean().item()
        return "" if same > 0.95 else f"only {100 * same:.0f} % of tokens are the twin's"
    if case.name.startswith("rope_kv_write"):
        return ""  # turns its arguments in place; tests/kernels check it
    error = relative_error(case.run(), case.twin())
    return "" if error <= TOLERANCE[dtype] else f"relative error {error:.1e}"


def kernels(device: str, dtype: torch.dtype, limits: Limits, *, toy: bool) -> list[dict[str, Any]]:
    """One line per op and size. A wrong result has no time."""
    lines = []
    with torch.inference_mode():
        for case in every_case(device, dtype, toy=toy):
            line: dict[str, Any] = {"op": case.name, "bytes": case.num_bytes, "flops": case.flops}
            wrong = check(case, dtype)
            if wrong:
                line["wrong"] = wrong
            else:
                time_s = seconds(case.run, device, toy=toy)
                floor_s = limits.floor_s(case.num_bytes, case.flops)
                is_bytes = case.num_bytes / limits.copy_bytes_per_s == floor_s
                line |= {
                    "time_s": time_s,
                    "floor_s": floor_s,
                    "bound": "bytes" if is_bytes else "flops",
                    "percent_of_limit": 100 * floor_s / time_s,
                }
            lines.append(line)
            progress(_as_text(line))
    return lines


def _as_text(line: dict[str, Any]) -> str:
    if "wrong" in line:
        return f"{line['op']:52s} WRONG: {line['wrong']}"
    return (
        f"{line['op']:52s} {line['time_s'] * 1e6:10.1f} µs "
        f"{line['bytes'] / line['time_s'] / 1e9:8.1f} GB/s "
        f"{line['flops'] / line['time_s'] / 1e12:7.2f} TFLOP/s "
        f"{line['percent_of_limit']:6.1f} % of {line['bound']}"
    )


def engine(device: str, limits: Limits, *, toy: bool, ends_s: float) -> dict[str, Any]:
    """The engine's parts, most important first, until the time is up."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)

        def decode(variant: Variant) -> Callable[[], Any]:
            return lambda: decode_steps(at, device, limits, variant, toy=toy)

        parts: dict[str, tuple[float, Callable[[], Any]]] = {
            "decode": (90, decode(Variant())),
            "decode_int8": (60, decode(Variant(quantization="int8"))),
            "pictures": (40, lambda: pictures(at, device, toy=toy)),
            "role_switches": (60, lambda: role_switches(at, device, toy=toy)),
            "mixed_load": (120, lambda: mixed_load(at, device, toy=toy)),
            "transfers": (60, lambda: transfers(at, device, toy=toy)),
            "compiled_tower": (45, lambda: compiled_tower(at, device, toy=toy)),
            "decode_experts": (60, decode(Variant(has_experts=True))),
            "decode_kv_fp8": (60, decode(Variant(kv_cache_dtype="fp8"))),
            "decode_kv_int8": (60, decode(Variant(kv_cache_dtype="int8"))),
        }
        for name, (needs_s, run) in parts.items():
            if time.monotonic() + needs_s > ends_s:
                found[name] = {"left_out": f"less than {needs_s:.0f} s were left"}
                continue
            progress(f"engine: {name}")
            found[name] = run()
            progress(json.dumps(found[name], indent=1))
            gc.collect()  # an engine and its parts know each other
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
    return found


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


def write(result: dict[str, Any], out: Path | None, suffix: str = "") -> Path:
    """The file that the result went to: `out`, or results/<device>-<date>.json."""
    if out is None:
        name = re.sub(r"[^a-z0-9]+", "-", f"{result['device']}-{result['date']}{suffix}".lower())
        out = Path(__file__).parent / "results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    return out


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that all benches of this folder share."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--toy", action="store_true", help="tiny sizes: only that it runs")
    arguments.add_argument("--minutes", type=float, default=9.0, help="when to stop")
    arguments.add_argument("--out", type=Path, help="the result's file")
    return arguments


def number_type(device: str) -> torch.dtype:
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def main(given: list[str]) -> int:
    """0; 1 if a kernel was wrong."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=["kernels", "engine"])
    chosen = arguments.parse_args(given)
    if chosen.device == "cpu" and not chosen.toy:
        arguments.error("--device cpu measures nothing of use: add --toy, or take bench_ops.py")
    ends_s = time.monotonic() + 60 * chosen.minutes
    torch.manual_seed(0)
    dtype = number_type(chosen.device)
    limits = measure_limits(chosen.device, dtype, toy=chosen.toy)
    result = conditions(chosen.device, dtype, limits, toy=chosen.toy)
    progress(json.dumps(result, indent=1))
    if chosen.only != "engine":
        result["kernels"] = kernels(chosen.device, dtype, limits, toy=chosen.toy)
    if chosen.only != "kernels":
        result["engine"] = engine(chosen.device, limits, toy=chosen.toy, ends_s=ends_s)
    goals = kernel_goals(result["kernels"]) if "kernels" in result else []
    goals += engine_goals(result["engine"]) if "engine" in result else []
    result["goals"] = [goal.told() for goal in goals]
    progress("\n".join(map(goal_text, goals)))
    print(write(result, chosen.out))
    return int(any("wrong" in line for line in result.get("kernels", [])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
