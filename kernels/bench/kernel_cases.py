"""This file is about one measurement per op of `epidote_kernels`: inputs, useful bytes and FLOPs.

`bench_ops.cases` has those of the first ops; here are the others. `useful` counts every live byte
once, as the op's documentation does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bench_ops import GPU_SIZES, Case, Sizes, cases

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch

TOY_SIZES = Sizes(
    name="toy",
    hidden=32,
    inner=48,
    num_heads=4,
    num_kv_heads=2,
    dim=16,
    decode=((2, 17),),
    prefill=((5, 16),),
    vision=((2, 9, 2, 16),),
)
# ops that are timed within others' cases, or done once at loading
NOT_TIMED = {"rope_table", "rope_cos_sin", "mrope_cos_sin", "quantize_weight"}


@dataclass(frozen=True)
class More:
    """Sizes of the ops that `bench_ops` does not know.

    rows      of a decode step;  vocab, hidden, inner  of the model;  experts, top_k  of its MoE
    blocks    of one transfer, in a pool of `layers` layers
    """

    rows: tuple[int, ...]
    vocab: int
    hidden: int
    inner: int
    experts: int
    top_k: int
    layers: int
    blocks: int
    tokens: tuple[int, ...]  # of a MoE step


GPU_MORE = More((1, 16, 64), 151936, 4096, 12288, 128, 8, 36, 256, (1, 16, 64, 512, 4096))
TOY_MORE = More((2,), 70, 32, 48, 4, 2, 2, 3, (1, 5))


def every_case(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[Case]:
    """All of them, one after another, so that one case's tensors live at a time."""
    for sizes in (TOY_SIZES,) if toy else GPU_SIZES:
        yield from cases(sizes, device, dtype)
    sizes, more = (TOY_SIZES, TOY_MORE) if toy else (GPU_SIZES[0], GPU_MORE)
    yield from _sampling(more, device, dtype)
    yield from _packing(sizes, more, device, dtype)
    yield from _quantized(more, device, dtype)
    yield from _moe(more, device, dtype)
    yield from _scores(sizes, device, dtype)


def both(op: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    """The op, and its twin with the same arguments."""
    kernel, twin = getattr(ops, op), getattr(reference, op)
    return {
        "run": lambda: kernel(*arguments, **keywords),
        "twin": lambda: twin(*arguments, **keywords),
    }


def _sampling(more: More, device: str, dtype: torch.dtype) -> Iterator[Case]:
    for rows in more.rows:
        logits = (torch.randn(rows, more.vocab, device=device) * 3).to(dtype)
        counters = torch.randint(0, 2**40, (3, rows), device=device).unbind()
        ones = torch.ones(rows, device=device)
        for name, top_k, top_p in (("plain", 0, 1.0), ("top-k 50 top-p 0.9", 50, 0.9)):
            chosen = (ones * 0.8, (ones * top_k).int(), ones * top_p, ones * 0.0)
            yield Case(
                name=f"sample_tokens N={rows} {name}",
                num_bytes=rows * more.vocab * dtype.itemsize,
                **both("sample_tokens", logits, *chosen, *counters),
            )
        wide = logits.float()
        every = torch.arange(rows, device=device)
        counts = torch.randint(0, 3, wide.shape, dtype=torch.int32, device=device)
        tables = (counts, counts > 1)
        yield Case(
            name=f"apply_penalties N={rows}",
            num_bytes=13 * rows * more.vocab,
            **both("apply_penalties", wide, every, every, *tables, ones * 1.1, ones, ones),
        )


def _packing(sizes: Sizes, more: More, device: str, dtype: torch.dtype) -> Iterator[Case]:
    count = 2 * more.blocks
    shape = (more.layers, 2, count, 16, sizes.num_kv_heads, sizes.dim)
    pool = torch.randn(shape, device=device).to(dtype)
    ids = torch.randperm(count, device=device)[: more.blocks]
    numbers = pool[:, :, : more.blocks].numel()
    for quantized in (None, torch.int8, torch.float8_e4m3fn):
        width = dtype.itemsize + (1 if quantized else dtype.itemsize)
        kind = str(quantized or dtype).removeprefix("torch.")
        yield Case(
            name=f"pack_blocks N={more.blocks} to {kind}",
            num_bytes=numbers * width,
            run=lambda q=quantized: ops.pack_blocks(pool, ids, quantized=q),
            twin=lambda q=quantized: reference.pack_blocks(pool, ids, q),
        )
        packed = ops.pack_blocks(pool, ids, quantized=quantized)
        yield Case(
            name=f"unpack_blocks N={more.blocks} from {kind}",
            num_bytes=numbers * width,
            **both("unpack_blocks", packed, pool, ids),
        )
    plane, half = pool[0, 0], more.blocks // 2
    if half:
        yield Case(
            name=f"copy_blocks N={half}",
            num_bytes=2 * half * plane[0].numel() * dtype.itemsize,
            **both("copy_blocks", plane, plane, ids[:half], ids[half : 2 * half]),
        )


def _quantized(more: More, device: str, dtype: torch.dtype) -> Iterator[Case]:
    for depth, columns in ((more.hidden, 2 * more.inner), (more.inner, more.hidden)):
        weight = torch.randn(columns, depth, device=device).to(dtype)
        for kind in (torch.int8, torch.float8_e4m3fn):
            values, scales = ops.quantize_weight(weight, kind)
            for rows in more.rows:
                x = torch.randn(rows, depth, device=device).to(dtype)
                name = str(kind).removeprefix("torch.")
                yield Case(
                    name=f"quantized_linear {name} M={rows} N={columns} K={depth}",
                    num_bytes=columns * (depth + 4) + rows * (depth + columns) * dtype.itemsize,
                    flops=2.0 * rows * columns * depth,
                    **both("quantized_linear", x, values, scales),
                )


def _moe(more: More, device: str, dtype: torch.dtype) -> Iterator[Case]:
    inner = max(more.inner // 16, 16)  # experts are narrow: 768 of Qwen3-30B-A3B
    hidden = more.hidden // 2
    gate_up = torch.randn(more.experts, 2 * inner, hidden, device=device).to(dtype) * hidden**-0.5
    down = torch.randn(more.experts, hidden, inner, device=device).to(dtype) * inner**-0.5
    for tokens in more.tokens:
        x = torch.randn(tokens, hidden, device=device).to(dtype)
        for skewed in (False, True):
            logits = torch.randn(tokens, more.experts, device=device)
            if skewed:  # a few experts take most tokens
                logits -= torch.arange(more.experts, device=device) * (8.0 / more.experts)
            logits = logits.to(dtype)
            name = f"T={tokens}" + " skewed" * skewed
            yield Case(
                name=f"moe_route {name}",
                num_bytes=tokens * (more.experts * dtype.itemsize + 8 * more.top_k),
                **both("moe_route", logits, more.top_k, renormalise=True),
            )
            weights, experts = ops.moe_route(logits, more.top_k)
            asked = len(experts.unique())
            moved = 2 * tokens * hidden + 2 * tokens * more.top_k * (hidden + inner)
            yield Case(
                name=f"fused_moe {name}",
                num_bytes=(3 * asked * hidden * inner + moved) * dtype.itemsize,
                flops=6.0 * tokens * more.top_k * hidden * inner,
                **both("fused_moe", x, gate_up, down, weights, experts),
            )


def _scores(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    window = min(32, sizes.prefill[-1][0])
    length = sum(sizes.prefill[-1])
    batch = paged_batch(
        [length], num_kv_heads=sizes.num_kv_heads, dim=sizes.dim, dtype=dtype, device=device
    )
    q = torch.randn(window, sizes.num_heads, sizes.dim, device=device).to(dtype)
    keywords = {"scale": sizes.dim**-0.5, "max_q_len": window, "max_seq_len": length}
    bounds = cumulative([window], device)
    arguments = (q, batch.k_cache, batch.block_tables, bounds, batch.seq_lens)
    yield Case(
        name=f"attention_column_sums window={window} L={length}",
        num_bytes=length * sizes.num_kv_heads * sizes.dim * dtype.itemsize,
        flops=4.0 * window * length * sizes.num_heads * sizes.dim,  # scores twice: norm, then sums
        run=lambda: ops.attention_column_sums(*arguments, **keywords),
        twin=lambda: ops.attention_column_sums(*arguments, **keywords),
    )
    scores = torch.rand(1, sizes.num_kv_heads, length, device=device)
    yield Case(
        name=f"pool_scores L={length}",
        num_bytes=2 * scores.numel() * 4,
        run=lambda: ops.pool_scores(scores, batch.seq_lens),
        twin=lambda: ops.pool_scores(scores, batch.seq_lens),
    )
