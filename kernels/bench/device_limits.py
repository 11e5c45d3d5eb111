"""This file is about what a device can do at best, measured: the limits that benches compare with.

Times are medians of many runs. On a GPU each run is timed by events, with the L2 cache flushed
between runs; on a CPU by the wall clock, only to see that everything runs.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


@dataclass(frozen=True)
class Limits:
    """Bytes per second of a large copy (read and written ones added), FLOP/s of a matrix product
    of random numbers in the bench's dtype."""

    copy_bytes_per_s: float
    matmul_flop_per_s: float

    def floor_s(self, num_bytes: float, flops: float) -> float:
        """The least time for this work: whichever limit it meets first."""
        return max(num_bytes / self.copy_bytes_per_s, flops / self.matmul_flop_per_s)


def measure_limits(device: str, dtype: torch.dtype, *, toy: bool) -> Limits:
    """Copy 2 GiB; multiply 8192³. Toys: 1 MiB, 64³."""
    size = (1 << 20) if toy else (2 << 30)
    source = torch.randint(-100, 100, (size,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copy_s = seconds(lambda: target.copy_(source), device, toy=toy)
    side = 64 if toy else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    matmul_s = seconds(lambda: a @ b, device, toy=toy)
    return Limits(2 * size / copy_s, 2 * side**3 / matmul_s)


def seconds(run: Callable[[], Any], device: str, *, toy: bool = False) -> float:
    """Median time of one call."""
    if device.startswith("cuda"):
        from triton.testing import do_bench

        return float(do_bench(run, warmup=25, rep=100, return_mode="median")) / 1e3
    times = []
    for _ in range(1 if toy else 20):
        start_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - start_s)
    return max(statistics.median(times), 1e-9)


def wait(device: str) -> None:
    """Until the device has done everything it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def conditions(device: str, dtype: torch.dtype, limits: Limits, *, toy: bool) -> dict[str, Any]:
    """What a result says of itself. No path, no host name."""
    names = ("torch", "triton", "transformers", "flashinfer-python", "numpy")
    return {
        "device": device_name(device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "dtype": str(dtype).removeprefix("torch."),
        "is_toy": toy,  # toy figures show that everything runs, and nothing else
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": {name: _version(name) for name in names},
        "limits": asdict(limits),
    }


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
