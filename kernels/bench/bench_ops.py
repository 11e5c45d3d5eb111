"""This file is about how long each op takes, and how far from the device's peak that is.

    python kernels/bench/bench_ops.py                # every op: kernels on a GPU, else twins
    python kernels/bench/bench_ops.py decode --json  # ops whose name contains "decode"

One line per op and size: the time of a call, GB/s of useful traffic or TFLOP/s of useful work,
percent of the device's peak, and on a GPU the torch twin's time beside it. Useful traffic counts
every live byte once, as `epidote_kernels.ops` documents it: waste shows as a low percentage.

On a GPU: median, caches flushed between runs. On a CPU: processor time of the best of nine batches,
caches warm, one thread; it is the overhead per call, and other processes hardly disturb it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch

# (GB/s, dense bf16 TFLOP/s) as the vendor's data sheets give them for the SXM modules
PEAKS = {"H200": (4800.0, 989.0), "H100": (3350.0, 989.0), "A100": (2039.0, 312.0)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement. `num_bytes` and `flops` are useful ones; `twin` computes the same.

    written  tensors that both change in place
    spoilt   tensors that an op may use as it likes: whole again before the next run of a check
    """

    name: str
    run: Callable[[], Any]
    twin: Callable[[], Any]
    num_bytes: float
    flops: float = 0.0
    written: tuple[torch.Tensor, ...] = ()
    spoilt: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A model's sizes, and those of its steps.

    decode   (sequences, tokens each)
    prefill  (chunk, prefix)
    vision   (segments, tokens each, heads, head dimension)
    blocks   moved at once: many, so that it is the copy that takes the time and not the launch
    """

    name: str
    hidden: int
    inner: int
    num_heads: int
    num_kv_heads: int
    dim: int
    decode: tuple[tuple[int, int], ...]
    prefill: tuple[tuple[int, int], ...]
    vision: tuple[tuple[int, int, int, int], ...]
    blocks: int = 128


GPU_SIZES = (
    Sizes(  # what the goals are about, hence first
        name="qwen3-8b",
        hidden=4096,
        inner=12288,
        num_heads=32,
        num_kv_heads=8,
        dim=128,
        decode=((64, 4096), (64, 32768)),
        prefill=((8192, 0),),
        vision=((4, 4096, 16, 72),),
        blocks=8192,  # 268 MB, of which L2 holds a fifth
    ),
    Sizes(
        name="qwen2.5-vl-7b",
        hidden=3584,
        inner=18944,
        num_heads=28,
        num_kv_heads=4,
        dim=128,
        decode=((1, 4096), (1, 32768), (16, 2048), (128, 1024), (256, 4096)),
        prefill=((512, 0), (2048, 0), (512, 8192), (8192, 0)),
        vision=((64, 64, 16, 80), (1, 4096, 16, 80), (8, 1024, 16, 72)),
        blocks=8192,
    ),
)
CPU_SIZES = (
    Sizes(
        name="tiny",
        hidden=192,
        inner=512,
        num_heads=6,
        num_kv_heads=2,
        dim=32,
        decode=((16, 64), (16, 256)),
        prefill=((32, 0), (64, 192)),
        vision=((4, 64, 4, 32),),
    ),
    Sizes(
        name="smollm2-135m",
        hidden=576,
        inner=1536,
        num_heads=9,
        num_kv_heads=3,
        dim=64,
        decode=((8, 128), (8, 512)),
        prefill=((128, 0), (64, 448)),
        vision=((1, 256, 12, 64),),
    ),
)


def both(op: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    """The op, and its twin with the same arguments."""
    kernel, twin = getattr(ops, op), getattr(reference, op)
    return {
        "run": lambda: kernel(*arguments, **keywords),
        "twin": lambda: twin(*arguments, **keywords),
    }


def cases(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Every op at `sizes`, one after another, so that one case's tensors live at a time."""
    for part in PARTS.values():
        yield from part(sizes, device, dtype)


def elementwise(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Norms, activation, rotation: as many tokens as a decode step and as a chunk has."""
    itemsize = dtype.itemsize
    hidden, inner, dim = sizes.hidden, sizes.inner, sizes.dim
    heads, kv_heads = sizes.num_heads, sizes.num_kv_heads

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    rows = [num_seqs for num_seqs, _ in sizes.decode[-1:]]
    rows += [chunk for chunk, _ in sizes.prefill[-1:]]
    for tokens in rows:
        x, residual, weight = draw(tokens, hidden), draw(tokens, hidden), draw(hidden)
        at = f"T={tokens}"
        size = tokens * hidden * itemsize
        yield Case(name=f"rms_norm {at}", num_bytes=2 * size, **both("rms_norm", x, weight, 1e-6))
        yield Case(
            name=f"add_rms_norm {at}",
            num_bytes=4 * size,
            **both("add_rms_norm", x, residual, weight, 1e-6),
        )
        yield Case(
            name=f"silu_mul {at}",
            num_bytes=3 * tokens * inner * itemsize,
            **both("silu_mul", draw(tokens, 2 * inner)),
        )
        qkv = draw(tokens, heads + 2 * kv_heads, dim)
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], 1)
        cos, sin = torch.rand(2, tokens, dim // 2, device=device).unbind()
        for name, norms in (
            ("rope_kv_write", {}),
            ("rope_kv_write qk-norm", {"q_norm": draw(dim), "k_norm": draw(dim), "eps": 1e-6}),
        ):
            cache = draw(2, tokens // 16 + 1, 16, kv_heads, dim)  # a new one: nothing is filed yet
            slots = torch.randperm(cache.shape[1] * 16, device=device)[:tokens]
            yield Case(
                name=f"{name} {at}",
                num_bytes=(2 * heads + 4 * kv_heads) * tokens * dim * itemsize + 4 * tokens * dim,
                written=tuple(cache),
                spoilt=(q,),
                **both("rope_kv_write", q, k, v, cos, sin, *cache, slots, **norms),
            )


def decode(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """One query a sequence; equal lengths, then ragged ones."""
    heads, kv_heads, dim = sizes.num_heads, sizes.num_kv_heads, sizes.dim
    for ragged in (False, True):
        for num_seqs, length in sizes.decode:
            lengths = [
                length - (row * length // (2 * num_seqs)) * ragged for row in range(num_seqs)
            ]
            batch = paged_batch(lengths, num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device)
            yield Case(
                name=f"paged_decode S={num_seqs} L={length}" + " ragged" * ragged,
                num_bytes=2 * sum(lengths) * kv_heads * dim * dtype.itemsize,
                flops=4.0 * sum(lengths) * heads * dim,
                **both(
                    "paged_decode_attention",
                    torch.randn(num_seqs, heads, dim, device=device).to(dtype),
                    *vars(batch).values(),
                    scale=dim**-0.5,
                ),
            )


def prefill(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """One chunk behind its prefix."""
    heads, kv_heads, dim = sizes.num_heads, sizes.num_kv_heads, sizes.dim
    for chunk, prefix in sizes.prefill:
        batch = paged_batch(
            [chunk + prefix], num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device
        )
        seen = chunk * prefix + chunk * (chunk + 1) / 2
        yield Case(
            name=f"paged_prefill chunk={chunk} prefix={prefix}",
            num_bytes=2 * (chunk * heads + (chunk + prefix) * kv_heads) * dim * dtype.itemsize,
            flops=4.0 * seen * heads * dim,
            **both(
                "paged_prefill_attention",
                torch.randn(chunk, heads, dim, device=device).to(dtype),
                batch.k_cache,
                batch.v_cache,
                batch.block_tables,
                cumulative([chunk], device),
                batch.seq_lens,
                scale=dim**-0.5,
                max_q_len=chunk,
            ),
        )


def vision(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Attention inside pictures or windows."""
    for segments, length, heads, dim in sizes.vision:
        qkv = torch.randn(segments * length, 3, heads, dim, device=device).to(dtype)
        yield Case(
            name=f"vision {segments}x{length} H={heads} D={dim}",
            num_bytes=4 * segments * length * heads * dim * dtype.itemsize,
            flops=4.0 * segments * length**2 * heads * dim,
            **both(
                "vision_attention",
                *qkv.unbind(1),
                cumulative([length] * segments, device),
                scale=dim**-0.5,
                max_seqlen=length,
            ),
        )


def blocks(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Whole blocks out of a cache, into it, and inside it."""
    count = sizes.blocks
    cache = torch.randn(2 * count, 16, sizes.num_kv_heads, sizes.dim, device=device).to(dtype)
    ids = torch.randperm(2 * count, device=device)
    num_bytes = 2 * count * cache[0].numel() * dtype.itemsize
    yield Case(
        name=f"gather_blocks N={count}",
        num_bytes=num_bytes,
        **both("gather_blocks", cache, ids[:count]),
    )
    yield Case(
        name=f"scatter_blocks N={count}",
        num_bytes=num_bytes,
        written=(cache,),
        **both("scatter_blocks", cache, ids[:count], cache[:count].clone()),
    )
    yield Case(
        name=f"copy_blocks N={count}",
        num_bytes=num_bytes,
        written=(cache,),
        **both("copy_blocks", cache, cache, ids[:count], ids[count:]),
    )


Part = Callable[[Sizes, str, torch.dtype], Iterator[Case]]
PARTS: dict[str, Part] = {
    "decode": decode,
    "prefill": prefill,
    "elementwise": elementwise,
    "vision": vision,
    "blocks": blocks,
}


def seconds(run: Callable[[], Any], device: str) -> float:
    """Time of one call; see the top of this file."""
    if device == "cuda":
        from triton.testing import do_bench

        return float(do_bench(run, warmup=50, rep=200, return_mode="median")) / 1e3
    for _ in range(20):
        run()
    times = []
    for _ in range(9):
        start = time.process_time()
        for _ in range(20):
            run()
        times.append((time.process_time() - start) / 20)
    return min(times)


def peaks_of(device: str) -> tuple[str, tuple[float, float] | None]:
    """The device's name, and its peaks where the table has them."""
    if device != "cuda":
        return "cpu", None
    name = torch.cuda.get_device_name()
    return name, next((peak for key, peak in PEAKS.items() if key in name), None)


def measured(case: Case, device: str, peak: tuple[float, float] | None) -> dict[str, Any]:
    """One line of the table. The percentage is of whichever limit this work meets first."""
    time_s = seconds(case.run, device)
    line: dict[str, Any] = {
        "op": case.name,
        "time_us": time_s * 1e6,
        "gb_per_s": case.num_bytes / time_s / 1e9,
        "tflop_per_s": case.flops / time_s / 1e12,
    }
    if device == "cuda":
        line["twin_us"] = seconds(case.twin, device) * 1e6
    if peak is not None:
        bound_s = max(case.num_bytes / (peak[0] * 1e9), case.flops / (peak[1] * 1e12))
        line["peak_percent"] = 100 * bound_s / time_s
        line["bound"] = "bytes" if bound_s == case.num_bytes / (peak[0] * 1e9) else "flops"
    return line


def main(arguments: list[str]) -> int:
    """Print the table on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="", help="only ops whose name contains this")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    chosen = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, chosen.dtype or ("bfloat16" if device == "cuda" else "float32"))
    torch.manual_seed(0)
    if device == "cpu":
        torch.set_num_threads(1)
    name, peak = peaks_of(device)
    known = f"{peak[0]:.0f} GB/s, {peak[1]:.0f} TFLOP/s" if peak else "unknown"
    print(
        f"device {name}, peak {known}, {dtype}, torch {torch.__version__}, seed 0", file=sys.stderr
    )
    with torch.inference_mode():
        for sizes in GPU_SIZES if device == "cuda" else CPU_SIZES:
            for case in cases(sizes, device, dtype):
                if chosen.name not in case.name:
                    continue
                line = {"sizes": sizes.name, **measured(case, device, peak)}
                print(json.dumps(line) if chosen.json else _as_text(line), flush=True)
    return 0


def _as_text(line: dict[str, Any]) -> str:
    text = (
        f"{line['sizes']:14s} {line['op']:40s} {line['time_us']:10.1f} µs "
        f"{line['gb_per_s']:8.1f} GB/s {line['tflop_per_s']:8.2f} TFLOP/s"
    )
    if "peak_percent" in line:
        text += f" {line['peak_percent']:5.1f} % of peak ({line['bound']})"
    if "twin_us" in line:
        text += f"   twin {line['twin_us']:10.1f} µs"
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
