"""This file is about which expert takes which token, on a GPU and without waiting for it.

Three small kernels: the best experts of every token; how many pairs (token, expert) of each run of
pairs go to each expert; and the place of every pair in the order by expert, with the list of tiles
that the expert products walk. Counting per run instead of atomically keeps the order, and so the
whole step, the same every time.

Sources: Sparsely-Gated Mixture-of-Experts, Shazeer et al., ICLR 2017; order by expert and tiles of
one expert each: MegaBlocks, Gale et al., MLSys 2023.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on, power_of_two

RUN = 256  # pairs that one program counts and places
COUNTS = 16  # runs whose counts a program adds up at once
RANKED = 32  # pairs that every pair of the run is compared with at once
TILES = 32  # tiles that are listed at once


@triton.jit(do_not_specialize=("num_tokens",))
def moe_route_kernel(
    logits_ptr,
    weights_ptr,
    experts_ptr,
    num_tokens,
    logits_stride,
    num_experts,
    TOP_K: tl.constexpr,
    RENORMALISE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_EXPERTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tokens = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    columns = tl.arange(0, BLOCK_EXPERTS)[None, :]
    places = tl.arange(0, BLOCK_K)[None, :]
    live = (tokens < num_tokens)[:, None]
    there = tokens.to(tl.int64)[:, None] * logits_stride + columns
    mask = live & (columns < num_experts)
    logits = tl.load(logits_ptr + there, mask=mask, other=float("-inf")).to(tl.float32)
    logits = tl.where(live, logits, 0.0)
    shares = tl.exp(logits - tl.max(logits, 1)[:, None])
    shares = shares / tl.sum(shares, 1)[:, None]
    left = tl.where(columns < num_experts, shares, -1.0)
    weights = tl.zeros((BLOCK_TOKENS, BLOCK_K), tl.float32)
    chosen = tl.zeros((BLOCK_TOKENS, BLOCK_K), tl.int32)
    for place in tl.static_range(TOP_K):
        best = tl.max(left, 1)[:, None]
        # of equal shares the lowest expert; not-a-number finds none, and may not leave the table
        expert = tl.min(tl.where(left == best, columns, num_experts - 1), 1)[:, None]
        weights = tl.where(places == place, best, weights)
        chosen = tl.where(places == place, expert, chosen)
        left = tl.where(columns == expert, -1.0, left)
    if RENORMALISE:
        weights = weights / tl.sum(weights, 1)[:, None]
    at = tokens.to(tl.int64)[:, None] * TOP_K + places
    mask = live & (places < TOP_K)
    tl.store(weights_ptr + at, weights, mask=mask)
    tl.store(experts_ptr + at, chosen, mask=mask)


@triton.jit
def _experts_here(experts_ptr, pairs, num_pairs, num_experts):
    """The experts of `pairs`; -1 past the last pair and for experts that lie elsewhere.

    Columns are padded to a power of two: an id one past the last expert would else have a column,
    rows and tiles of its own.
    """
    experts = tl.load(experts_ptr + pairs, mask=pairs < num_pairs, other=-1)
    return tl.where(experts < num_experts, tl.maximum(experts, -1), -1)


@triton.jit(do_not_specialize=("num_pairs",))
def moe_count_kernel(
    experts_ptr,
    counts_ptr,
    num_pairs,
    num_experts,
    RUN: tl.constexpr,
    BLOCK_EXPERTS: tl.constexpr,
):
    pairs = tl.program_id(0) * RUN + tl.arange(0, RUN)
    columns = tl.arange(0, BLOCK_EXPERTS)
    experts = _experts_here(experts_ptr, pairs, num_pairs, num_experts)
    counts = tl.sum((experts[:, None] == columns[None, :]).to(tl.int32), 0)
    tl.store(counts_ptr + tl.program_id(0) * BLOCK_EXPERTS + columns, counts)


@triton.jit(do_not_specialize=("num_pairs", "num_runs", "num_tiles"))
def moe_place_kernel(
    experts_ptr,
    counts_ptr,
    order_ptr,
    starts_ptr,
    tile_experts_ptr,
    tile_rows_ptr,
    num_pairs,
    num_runs,
    num_tiles,
    num_experts,
    RUN: tl.constexpr,
    COUNTS: tl.constexpr,
    RANKED: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_EXPERTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    run = tl.program_id(0)
    columns = tl.arange(0, BLOCK_EXPERTS)
    everywhere = tl.zeros((BLOCK_EXPERTS,), tl.int32)
    before = tl.zeros((BLOCK_EXPERTS,), tl.int32)
    for chunk in range(0, num_runs, COUNTS):
        runs = chunk + tl.arange(0, COUNTS)
        at = counts_ptr + runs[:, None] * BLOCK_EXPERTS + columns[None, :]
        counts = tl.load(at, mask=(runs < num_runs)[:, None], other=0)
        everywhere += tl.sum(counts, 0)
        before += tl.sum(tl.where((runs < run)[:, None], counts, 0), 0)
    starts = tl.cumsum(everywhere, 0) - everywhere

    within = tl.arange(0, RUN)
    pairs = run * RUN + within
    experts = _experts_here(experts_ptr, pairs, num_pairs, num_experts)
    # a pair's rank in its run is how many before it chose alike
    rank = tl.zeros((RUN,), tl.int32)
    for chunk in range(0, RUN, RANKED):
        others = chunk + tl.arange(0, RANKED)
        chose = _experts_here(experts_ptr, run * RUN + others, num_pairs, num_experts)
        alike = experts[:, None] == chose[None, :]
        rank += tl.sum((alike & (others[None, :] < within[:, None])).to(tl.int32), 1)
    place = tl.gather(starts + before, tl.maximum(experts, 0), 0) + rank
    tl.store(order_ptr + place, pairs, mask=experts >= 0)

    if run == 0:
        tl.store(starts_ptr + columns, starts, mask=columns < num_experts)
        tl.store(starts_ptr + num_experts, tl.sum(everywhere, 0))
        tiles_of = tl.cdiv(everywhere, BLOCK_ROWS)
        tile_ends = tl.cumsum(tiles_of, 0)
        for chunk in range(0, num_tiles, TILES):
            tiles = chunk + tl.arange(0, TILES)
            mine = (tile_ends[None, :] > tiles[:, None]) & (
                (tile_ends - tiles_of)[None, :] <= tiles[:, None]
            )
            owner = tl.max(tl.where(mine, columns[None, :], -1), 1)
            skipped = (tiles[:, None] - (tile_ends - tiles_of)[None, :]) * BLOCK_ROWS
            row = tl.sum(tl.where(mine, starts[None, :] + skipped, 0), 1)
            tl.store(tile_experts_ptr + tiles, owner, mask=tiles < num_tiles)
            tl.store(tile_rows_ptr + tiles, row, mask=tiles < num_tiles)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pairs by expert. Row r of the order is pair `pairs[r]`, of token `pairs[r] // top_k`.

    starts   [E + 1]: expert e has rows starts[e]:starts[e + 1]
    tile_experts, tile_rows  [tiles]: the expert and first row of a tile; expert -1 past the last
    """

    pairs: Tensor
    starts: Tensor
    tile_experts: Tensor
    tile_rows: Tensor


def most_tiles(num_pairs: int, num_experts: int, block_rows: int) -> int:
    """At most so many tiles cover the pairs, however they fall on the experts.

    >>> most_tiles(8, 128, 16), most_tiles(64, 2, 16)
    (8, 5)
    """
    return (num_pairs + (block_rows - 1) * min(num_experts, num_pairs)) // block_rows


def moe_route(logits: Tensor, top_k: int, *, renormalise: bool) -> tuple[Tensor, Tensor]:
    """The kernel behind `ops.moe_route`, which checks; twin: `reference.moe_route`."""
    num_tokens, num_experts = logits.shape
    shape = (num_tokens, top_k)
    weights = torch.empty(shape, dtype=torch.float32, device=logits.device)
    experts = torch.empty(shape, dtype=torch.int32, device=logits.device)
    if num_tokens:
        block = power_of_two(num_experts)
        tokens = max(1, 1024 // block)
        with launching_on(logits):
            moe_route_kernel[(divided_up(num_tokens, tokens),)](
                logits, weights, experts, num_tokens, logits.stride(0), num_experts,
                TOP_K=top_k, RENORMALISE=renormalise, BLOCK_TOKENS=tokens, BLOCK_EXPERTS=block,
                BLOCK_K=power_of_two(top_k), num_warps=4,
            )  # fmt: skip
    return weights, experts


def order_by_expert(experts: Tensor, num_experts: int, block_rows: int) -> Order:
    """Rank the pairs of `experts` [T, k] int32; any id outside 0 … E-1 has no row and no tile."""
    num_pairs = experts.numel()
    num_runs = divided_up(num_pairs, RUN)
    num_tiles = most_tiles(num_pairs, num_experts, block_rows)
    block = power_of_two(num_experts)

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=experts.device)

    counts = integers(num_runs, block)
    order = Order(
        pairs=integers(num_pairs),
        starts=integers(num_experts + 1),
        tile_experts=integers(num_tiles),
        tile_rows=integers(num_tiles),
    )
    with launching_on(experts):
        moe_count_kernel[(num_runs,)](
            experts, counts, num_pairs, num_experts, RUN=RUN, BLOCK_EXPERTS=block, num_warps=8
        )
        moe_place_kernel[(num_runs,)](
            experts, counts, order.pairs, order.starts, order.tile_experts, order.tile_rows,
            num_pairs, num_runs, num_tiles, num_experts,
            RUN=RUN, COUNTS=COUNTS, RANKED=RANKED, TILES=TILES,
            BLOCK_EXPERTS=block, BLOCK_ROWS=block_rows, num_warps=8,
        )  # fmt: skip
    return order


def forms(number: str) -> Iterator[Form]:
    """Compile for the experts of current models; `number` is "bf16", …"""
    integers = ("num_pairs", "num_runs", "num_tiles", "num_experts")
    for num_experts, top_k in ((64, 6), (128, 8), (256, 8)):
        block = {"BLOCK_EXPERTS": power_of_two(num_experts)}
        for renormalise in (True, False):
            yield Form(
                name=f"moe_route experts={num_experts} top_k={top_k} sum={renormalise:d}",
                kernel=moe_route_kernel,
                types={
                    "logits_ptr": f"*{number}",
                    "weights_ptr": "*fp32",
                    "experts_ptr": "*i32",
                    **dict.fromkeys(("num_tokens", "logits_stride", "num_experts"), "i32"),
                },
                constants={
                    **block,
                    "TOP_K": top_k,
                    "RENORMALISE": renormalise,
                    "BLOCK_TOKENS": max(1, 1024 // block["BLOCK_EXPERTS"]),
                    "BLOCK_K": power_of_two(top_k),
                },
                num_warps=4,
                num_stages=3,
            )
        counting: tuple[str, ...] = ("experts_ptr", "counts_ptr")
        yield Form(
            name=f"moe_count experts={num_experts}",
            kernel=moe_count_kernel,
            types={
                **dict.fromkeys(counting, "*i32"),
                **dict.fromkeys(("num_pairs", "num_experts"), "i32"),
            },
            constants={**block, "RUN": RUN},
            num_warps=8,
            num_stages=3,
        )
        pointers = (*counting, "order_ptr", "starts_ptr", "tile_experts_ptr", "tile_rows_ptr")
        yield Form(
            name=f"moe_place experts={num_experts}",
            kernel=moe_place_kernel,
            types={**dict.fromkeys(pointers, "*i32"), **dict.fromkeys(integers, "i32")},
            constants={
                **block,
                "RUN": RUN,
                "COUNTS": COUNTS,
                "RANKED": RANKED,
                "TILES": TILES,
                "BLOCK_ROWS": 64,
            },
            num_warps=8,
            num_stages=3,
        )
