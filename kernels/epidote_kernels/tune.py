"""This file is about measuring the tilings of the present GPU and writing its table.

    python -m epidote_kernels.tune                     # every kernel; about ten minutes
    python -m epidote_kernels.tune paged_decode        # one kernel; other entries are kept
    python -m epidote_kernels.tune --folder /etc/epidote/tuning   # EPIDOTE_TUNING_FOLDER reads it

Each candidate is compared with the twin before it is timed: a fast wrong answer wins nothing. The
time is the median of repeated runs with flushed caches.
"""

import argparse
import datetime
import math
import pathlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epidote_kernels.tilings import FOLDER, Table, Tiling, file_name, read_table, write_table
from epidote_kernels.tuning_space import Problem, problems

MAX_ERROR = 2e-2  # bf16 in another order of sums; a wrong tile is off by 1


def relative_error(got: Tensor, want: Tensor) -> float:
    """‖got - want‖ / ‖want‖ in fp32; not-a-number anywhere gives not-a-number.

    >>> relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    0.0
    """
    return float((got.float() - want.float()).norm() / want.float().norm())


def best_of(
    problem: Problem,
    device: torch.device,
    time_ms: Callable[[Callable[[], Any]], float],
    say: Callable[[str], None],
) -> tuple[Tiling, float] | None:
    """The fastest candidate that computes what the twin does, and its time; None if none does."""
    run, want = problem.prepare(device)
    best: tuple[Tiling, float] | None = None
    for tiling in problem.candidates:
        try:
            got = run(tiling)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except Exception as error:  # too much shared memory, or no such code: not on this device
            say(f"  {tiling.as_json()}: left out, {type(error).__name__}")
            continue
        error_ratio = relative_error(got, want)
        if math.isnan(error_ratio) or error_ratio > MAX_ERROR:
            say(f"  {tiling.as_json()}: left out, differs by {error_ratio:.3g}")
            continue
        took_ms = time_ms(partial(run, tiling))
        if best is None or took_ms < best[1]:
            best = tiling, took_ms
    return best


def _median_ms(run: Callable[[], Any]) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, warmup=10, rep=40, return_mode="median"))


def main(arguments: list[str]) -> int:
    """Measure and write; 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel", nargs="?", default="", help="only this kernel")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="where tables lie")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("tune: needs a CUDA device, found none", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    name = torch.cuda.get_device_name(device)
    path = chosen.folder / file_name(name)
    table: Table = read_table(path) if path.is_file() else {}
    torch.manual_seed(0)
    for problem in problems():
        if chosen.kernel not in ("", problem.kernel):
            continue
        best = best_of(problem, device, _median_ms, lambda text: print(text, file=sys.stderr))
        if best is None:
            print(f"{problem.kernel} {problem.key}: no candidate runs")
            continue
        tiling, took_ms = best
        table.setdefault(problem.kernel, {})[problem.key] = tiling
        print(f"{problem.kernel} {problem.key}: {tiling.as_json()} {took_ms:.4f} ms", flush=True)
        write_table(path, table, _about(name, measured=chosen.kernel or "every kernel"))
        torch.cuda.empty_cache()
    return 0


def _about(name: str, *, measured: str) -> dict[str, Any]:
    import triton

    return {
        "device": name,
        "measured": measured,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
