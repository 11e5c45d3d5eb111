"""This file is about one measurement per op of `epidote_kernels`: inputs, useful bytes and FLOPs.

`bench_ops.PARTS` has those of the first ops; here are the others, and other forms of the first.
`useful` counts every live byte once, as the op's documentation does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from bench_ops import GPU_SIZES, PARTS, Case, Sizes, both

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
    blocks=3,
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


Group = Callable[[], Iterator[Case]]


def groups(device: str, dtype: torch.dtype, *, toy: bool) -> dict[str, Group]:
    """Cases by what they have in common, what goals are about first. One case's tensors live at a
    time; inputs that can't be made cost their group, and no other."""
    every = (TOY_SIZES,) if toy else GPU_SIZES
    first, more = every[0], TOY_MORE if toy else GPU_MORE

    def of_sizes(sizes: Sizes) -> dict[str, Group]:
        return {
            f"{sizes.name} {name}": partial(part, sizes, device, dtype)
            for name, part in PARTS.items()
        }

    found = of_sizes(first)
    found["codes"] = partial(_codes, first, device, dtype)
    found["ragged heads"] = partial(_ragged_heads, first, device, dtype)
    found["pictures"] = partial(_pictures, first, device, dtype)
    found["moe"] = partial(_moe, more, device, dtype)
    found["sampling"] = partial(_sampling, more, device, dtype)
    found["packing"] = partial(_packing, first, more, device, dtype)
    found["quantized"] = partial(_quantized, more, device, dtype)
    found["scores"] = partial(_scores, first, device, dtype)
    for sizes in every[1:]:
        found |= of_sizes(sizes)
    return found


def _codes(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Attention over, and filing into, caches of one byte a number."""
    heads, kv_heads, dim = sizes.num_heads, sizes.num_kv_heads, sizes.dim
    scales = torch.rand(2, kv_heads, device=device) * 0.01 + 0.01
    for kind in (torch.int8, torch.float8_e4m3fn):
        word = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}[kind]
        scaled = dict(zip(("k_scale", "v_scale"), scales, strict=True))
        for num_seqs, length in sizes.decode:
            batch = paged_batch(
                [length] * num_seqs, num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device
            )
            caches = [(cache * 40).to(kind) for cache in (batch.k_cache, batch.v_cache)]
            yield Case(
                name=f"paged_decode {word} S={num_seqs} L={length}",
                num_bytes=2 * num_seqs * length * kv_heads * dim,
                flops=4.0 * num_seqs * length * heads * dim,
                **both(
                    "paged_decode_attention",
                    torch.randn(num_seqs, heads, dim, device=device).to(dtype),
                    *caches,
                    batch.block_tables,
                    batch.seq_lens,
                    scale=dim**-0.5,
                    **scaled,
                ),
            )
        tokens = sizes.prefill[-1][0]
        q, k, v = (
            torch.randn(tokens, n, dim, device=device).to(dtype)
            for n in (heads, kv_heads, kv_heads)
        )
        cos, sin = torch.rand(2, tokens, dim // 2, device=device).unbind()
        shape = (2, tokens // 16 + 1, 16, kv_heads, dim)
        cache = (torch.randn(shape, device=device) * 40).to(kind)
        slots = torch.randperm(shape[1] * 16, device=device)[:tokens]
        moved = 2 * (heads + kv_heads) * dtype.itemsize + 2 * kv_heads
        yield Case(
            name=f"rope_kv_write {word} T={tokens}",
            num_bytes=moved * tokens * dim + 4 * tokens * dim,
            written=tuple(cache),
            spoilt=(q,),
            **both("rope_kv_write", q, k, v, cos, sin, *cache, slots, **scaled),
        )


def _ragged_heads(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Caches that a policy has thinned: every head of a sequence keeps a number of its own."""
    heads, kv_heads, dim = sizes.num_heads, sizes.num_kv_heads, sizes.dim
    num_seqs, length = sizes.decode[0]
    batch = paged_batch(
        [length] * num_seqs, num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device
    )
    lengths = torch.randint(length // 4, length + 1, (num_seqs, kv_heads), device=device)
    live = int(lengths.sum())
    yield Case(
        name=f"paged_decode heads S={num_seqs} L={length}",
        num_bytes=2 * live * dim * dtype.itemsize,
        flops=4.0 * live * (heads // kv_heads) * dim,
        **both(
            "paged_decode_attention",
            torch.randn(num_seqs, heads, dim, device=device).to(dtype),
            batch.k_cache,
            batch.v_cache,
            batch.block_tables,
            lengths.int(),
            scale=dim**-0.5,
        ),
    )


def _pictures(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """A chunk in which pictures are seen in both directions: its second and last quarter."""
    heads, kv_heads, dim = sizes.num_heads, sizes.num_kv_heads, sizes.dim
    chunk, prefix = sizes.prefill[-1]
    batch = paged_batch(
        [chunk + prefix], num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device
    )
    part = max(chunk // 4, 1)
    ends = torch.zeros(chunk, dtype=torch.int32, device=device)
    ends[part : 2 * part] = prefix + 2 * part
    ends[3 * part :] = prefix + chunk
    own = torch.arange(prefix + 1, prefix + chunk + 1, device=device)
    seen = float(torch.maximum(own, ends).sum())
    yield Case(
        name=f"paged_prefill pictures chunk={chunk} prefix={prefix}",
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
            span_ends=ends,
        ),
    )


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
            written=(wide,),
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
            written=(pool,),
            **both("unpack_blocks", packed, pool, ids.flip(0)),
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
            table = torch.ones(more.experts, 2, dtype=torch.int32, device=device)
            table[:, 1] = torch.randperm(more.experts, device=device)  # one replica each
            yield Case(
                name=f"replica_slots {name}",
                num_bytes=16 * experts.numel(),
                **both("replica_slots", experts, table),
            )


def _scores(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    window = min(32, sizes.prefill[-1][0])
    length = sum(sizes.prefill[-1])
    batch = paged_batch(
        [length], num_kv_heads=sizes.num_kv_heads, dim=sizes.dim, dtype=dtype, device=device
    )
    q = torch.randn(window, sizes.num_heads, sizes.dim, device=device).to(dtype)
    keywords = {"scale": sizes.dim**-0.5, "max_q_len": window}
    bounds = cumulative([window], device)
    arguments = (q, batch.k_cache, batch.block_tables, bounds, batch.seq_lens)

    def column_sums() -> torch.Tensor:
        sums = torch.zeros(1, sizes.num_kv_heads, length, device=device)
        reference.attention_column_sums(*arguments, sums, **keywords)
        return sums

    yield Case(
        name=f"attention_column_sums window={window} L={length}",
        num_bytes=length * sizes.num_kv_heads * sizes.dim * dtype.itemsize,
        flops=4.0 * window * length * sizes.num_heads * sizes.dim,  # scores twice: norm, then sums
        run=lambda: ops.attention_column_sums(*arguments, **keywords, max_seq_len=length),
        twin=column_sums,
    )
    scores = torch.rand(1, sizes.num_kv_heads, length, device=device)
    yield Case(
        name=f"pool_scores L={length}",
        num_bytes=2 * scores.numel() * 4,
        run=lambda: ops.pool_scores(scores, batch.seq_lens),
        twin=lambda: reference.pool_scores(scores, batch.seq_lens, 5, largest=False),
    )
