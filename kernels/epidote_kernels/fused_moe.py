"""This file is about the products of a mixture of experts, on a GPU and without waiting for it.

Pairs (token, expert) stand in order by expert (`moe_routing`). One kernel multiplies the gathered
tokens with the gate and up projections of their expert and applies the activation; a second
multiplies with the down projection and puts rows back by pair; a third adds each token's pairs by
weight. Tiles have rows of one expert; their number is bounded by sizes alone, and programs past
the last tile end at once. Neighbouring programs share an expert's weights, so that an expert with
many tiles reads them from L2. Weights of 8 bits are widened behind their loads to what tokens are
in; a column's scale, which every term of its sum shares, follows the sum.

Sources: MegaBlocks, Gale et al., MLSys 2023; SwiGLU: Shazeer, 2020.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import INTERPRETED, Form, divided_up, launching_on, power_of_two
from epidote_kernels.moe_routing import most_tiles, order_by_expert
from epidote_kernels.tilings import Tiling, known_tilings, tiling_for

GROUP_TILES = 8  # tiles of rows that walk the columns together, so that weights stay in L2
COMBINED = 1024  # columns of a token's sum per program
ROWS = (16, 32, 64, 128)  # sizes of a tile of rows


@triton.jit
def _tile_of_program(num_tiles, num_columns, BLOCK_COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """(tile of rows, tile of columns): GROUP tiles of rows first, then the next columns."""
    program = tl.program_id(0)
    across = tl.cdiv(num_columns, BLOCK_COLUMNS)
    group = program // (GROUP * across)
    first = group * GROUP
    high = tl.minimum(num_tiles - first, GROUP)
    inside = program % (GROUP * across)
    return first + inside % high, inside // high


@triton.jit(do_not_specialize=("num_tiles",))
def moe_gate_up_kernel(
    x_ptr,
    weight_ptr,
    scales_ptr,
    out_ptr,
    pairs_ptr,
    starts_ptr,
    tile_experts_ptr,
    tile_rows_ptr,
    num_tiles,
    x_stride,
    expert_stride,
    row_stride,
    out_stride,
    depth,
    inner,
    TOP_K: tl.constexpr,
    EVEN: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    tile, column_tile = _tile_of_program(num_tiles, inner, BLOCK_COLUMNS, GROUP)
    expert = tl.load(tile_experts_ptr + tile)
    if expert < 0:
        return
    rows = tl.load(tile_rows_ptr + tile) + tl.arange(0, BLOCK_ROWS)
    live = rows < tl.load(starts_ptr + expert + 1)
    tokens = tl.load(pairs_ptr + rows, mask=live, other=0) // TOP_K
    columns = column_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = columns % inner  # columns past the end read others' weights and are never stored
    depths = tl.arange(0, BLOCK_DEPTH)
    x_at = x_ptr + tokens.to(tl.int64)[:, None] * x_stride + depths[None, :]
    gate_at = weight_ptr + expert.to(tl.int64) * expert_stride
    gate_at += inside.to(tl.int64)[:, None] * row_stride + depths[None, :]
    up_at = gate_at + inner.to(tl.int64) * row_stride
    gate = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    up = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, depth, BLOCK_DEPTH):
        if EVEN:
            x = tl.load(x_at, mask=live[:, None], other=0.0)
            gate_weight = tl.load(gate_at)
            up_weight = tl.load(up_at)
        else:
            left = (start + depths < depth)[None, :]
            x = tl.load(x_at, mask=live[:, None] & left, other=0.0)
            gate_weight = tl.load(gate_at, mask=left, other=0.0)
            up_weight = tl.load(up_at, mask=left, other=0.0)
        if WIDEN:
            x = x.to(tl.float32)
            gate_weight = gate_weight.to(tl.float32)
            up_weight = up_weight.to(tl.float32)
        elif CODES:
            gate_weight = gate_weight.to(x.dtype)
            up_weight = up_weight.to(x.dtype)
        gate = tl.dot(x, tl.trans(gate_weight), gate, input_precision="ieee")
        up = tl.dot(x, tl.trans(up_weight), up, input_precision="ieee")
        x_at += BLOCK_DEPTH
        gate_at += BLOCK_DEPTH
        up_at += BLOCK_DEPTH
    if CODES:
        scales_at = scales_ptr + expert.to(tl.int64) * (2 * inner) + inside
        gate *= tl.load(scales_at)[None, :]
        up *= tl.load(scales_at + inner)[None, :]
    mixed = gate / (1.0 + tl.exp(-gate)) * up
    out_at = out_ptr + rows.to(tl.int64)[:, None] * out_stride + columns[None, :]
    mask = live[:, None] & (columns < inner)[None, :]
    tl.store(out_at, mixed.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=("num_tiles",))
def moe_down_kernel(
    x_ptr,
    weight_ptr,
    scales_ptr,
    out_ptr,
    pairs_ptr,
    starts_ptr,
    tile_experts_ptr,
    tile_rows_ptr,
    num_tiles,
    x_stride,
    expert_stride,
    row_stride,
    out_stride,
    depth,
    num_columns,
    EVEN: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    tile, column_tile = _tile_of_program(num_tiles, num_columns, BLOCK_COLUMNS, GROUP)
    expert = tl.load(tile_experts_ptr + tile)
    if expert < 0:
        return
    rows = tl.load(tile_rows_ptr + tile) + tl.arange(0, BLOCK_ROWS)
    live = rows < tl.load(starts_ptr + expert + 1)
    columns = column_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = columns % num_columns
    depths = tl.arange(0, BLOCK_DEPTH)
    x_at = x_ptr + rows.to(tl.int64)[:, None] * x_stride + depths[None, :]
    weight_at = weight_ptr + expert.to(tl.int64) * expert_stride
    weight_at += inside.to(tl.int64)[:, None] * row_stride + depths[None, :]
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, depth, BLOCK_DEPTH):
        if EVEN:
            x = tl.load(x_at, mask=live[:, None], other=0.0)
            weight = tl.load(weight_at)
        else:
            left = (start + depths < depth)[None, :]
            x = tl.load(x_at, mask=live[:, None] & left, other=0.0)
            weight = tl.load(weight_at, mask=left, other=0.0)
        if WIDEN:
            x = x.to(tl.float32)
            weight = weight.to(tl.float32)
        elif CODES:
            weight = weight.to(x.dtype)
        acc = tl.dot(x, tl.trans(weight), acc, input_precision="ieee")
        x_at += BLOCK_DEPTH
        weight_at += BLOCK_DEPTH
    if CODES:
        acc *= tl.load(scales_ptr + expert.to(tl.int64) * num_columns + inside)[None, :]
    pairs = tl.load(pairs_ptr + rows, mask=live, other=0).to(tl.int64)
    out_at = out_ptr + pairs[:, None] * out_stride + columns[None, :]
    mask = live[:, None] & (columns < num_columns)[None, :]
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def moe_combine_kernel(
    parts_ptr,
    weights_ptr,
    experts_ptr,
    out_ptr,
    size,
    num_experts,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < size
    total = tl.zeros((BLOCK,), tl.float32)
    for place in tl.static_range(TOP_K):
        pair = token * TOP_K + place
        expert = tl.load(experts_ptr + pair)
        here = (expert >= 0) & (expert < num_experts)  # else another device's, and never written
        part = tl.load(parts_ptr + pair * size + columns, mask=mask & here, other=0.0)
        total += tl.load(weights_ptr + pair, mask=here, other=0.0) * part.to(tl.float32)
    tl.store(out_ptr + token * size + columns, total.to(out_ptr.dtype.element_ty), mask=mask)


def rows_per_tile(num_pairs: int, num_experts: int) -> int:
    """Rows of a tile for an even load; a skewed one gives some experts more tiles.

    >>> [rows_per_tile(n * 8, 128) for n in (1, 64, 1024, 4096)]
    [16, 16, 64, 128]
    """
    mean = divided_up(num_pairs, max(1, min(num_experts, num_pairs)))
    return next((rows for rows in ROWS if rows >= mean), ROWS[-1])


def tiling_key(itemsize: int, rows: int, *, codes: bool = False) -> str:
    """What the tiling depends on; kernels "moe_gate_up" and "moe_down". `codes`: 8-bit weights.

    >>> tiling_key(2, 16), tiling_key(2, 16, codes=True)
    ('16-bit rows=16', '16-bit codes rows=16')
    """
    return f"{8 * itemsize}-bit {'codes ' if codes else ''}rows={rows}"


def default_tiling(kernel: str, itemsize: int, rows: int, *, codes: bool = False) -> Tiling:
    """For a device without a table. Few rows: narrow columns, to have a program for every weight.

    The first product has two sums, gate and up, hence half the columns of the second. Few rows of
    8-bit weights are as many bytes as of others: twice as deep.
    """
    if itemsize == 4:
        rows, columns, depth, warps, stages = min(rows, 32), 32, 32, 4, 2
    elif rows <= 32:
        columns, depth, warps, stages = 64, 128, 4, 4
    elif rows == 64:
        columns, depth, warps, stages = 128, 64, 4, 3
    else:
        columns, depth, warps, stages = 256, 64, 8, 3
    if kernel == "moe_gate_up" and itemsize == 2:
        columns //= 2
    if codes and itemsize == 2 and rows <= 32:
        depth *= 2
    sizes = {"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns, "BLOCK_DEPTH": depth}
    return Tiling(sizes=sizes, num_warps=warps, num_stages=stages)


def tilings_for(
    x: Tensor, num_pairs: int, num_experts: int, *, codes: bool = False
) -> tuple[Tiling, Tiling]:
    """Those of both products, which share their rows."""
    itemsize = x.element_size()
    rows = rows_per_tile(num_pairs, num_experts)
    key = tiling_key(itemsize, rows, codes=codes)
    first, second = (
        tiling_for(name, key, default_tiling(name, itemsize, rows, codes=codes), x.device)
        for name in ("moe_gate_up", "moe_down")
    )
    return first, second


def fused_moe(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    *,
    scales: tuple[Tensor, Tensor] | None = None,
    num_everywhere: int = 0,
    tilings: tuple[Tiling, Tiling] | None = None,
) -> Tensor:
    """The kernel behind `ops.fused_moe`, which checks; twin: `reference.fused_moe`.

    tilings   for tests and measurements, with equal BLOCK_ROWS; by default the device decides
    """
    num_tokens, hidden = x.shape
    num_experts, _, inner = down.shape
    top_k = experts.shape[1]
    num_pairs = num_tokens * top_k
    out = torch.empty((num_tokens, hidden), dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    first, second = tilings or tilings_for(
        x, num_pairs, num_everywhere or num_experts, codes=scales is not None
    )
    rows = first.sizes["BLOCK_ROWS"]
    if second.sizes["BLOCK_ROWS"] != rows:
        raise ValueError(
            f"tilings: must have equal BLOCK_ROWS, got {rows} and {second.sizes['BLOCK_ROWS']}"
        )
    order = order_by_expert(experts, num_experts, rows)
    mixed = torch.empty((num_pairs, inner), dtype=x.dtype, device=x.device)
    parts = torch.empty((num_pairs, hidden), dtype=x.dtype, device=x.device)
    num_tiles = most_tiles(num_pairs, num_experts, rows)
    has_codes = scales is not None
    gate_up_scales, down_scales = scales or (weights, weights)  # not read without codes
    listed = (order.pairs, order.starts, order.tile_experts, order.tile_rows, num_tiles)
    with launching_on(x):
        moe_gate_up_kernel[(num_tiles * divided_up(inner, first.sizes["BLOCK_COLUMNS"]),)](
            x, gate_up, gate_up_scales, mixed, *listed,
            x.stride(0), *gate_up.stride()[:2], inner, hidden, inner,
            TOP_K=top_k, EVEN=hidden % first.sizes["BLOCK_DEPTH"] == 0, CODES=has_codes,
            GROUP=GROUP_TILES, WIDEN=INTERPRETED, **first.sizes,
            num_warps=first.num_warps, num_stages=first.num_stages,
        )  # fmt: skip
        moe_down_kernel[(num_tiles * divided_up(hidden, second.sizes["BLOCK_COLUMNS"]),)](
            mixed, down, down_scales, parts, *listed,
            inner, *down.stride()[:2], hidden, inner, hidden,
            EVEN=inner % second.sizes["BLOCK_DEPTH"] == 0, CODES=has_codes,
            GROUP=GROUP_TILES, WIDEN=INTERPRETED, **second.sizes,
            num_warps=second.num_warps, num_stages=second.num_stages,
        )  # fmt: skip
        block = min(COMBINED, power_of_two(hidden))
        moe_combine_kernel[(num_tokens, divided_up(hidden, block))](
            parts, weights, experts, out, hidden, num_experts,
            TOP_K=top_k, BLOCK=block, num_warps=4,
        )  # fmt: skip
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile by the rule and by every table, weights even and not, as they are and in int8 and
    fp8; `number` is "bf16", …"""
    itemsize = 4 if number == "fp32" else 2
    listed = ("pairs_ptr", "starts_ptr", "tile_experts_ptr", "tile_rows_ptr")
    strides = ("x_stride", "expert_stride", "row_stride", "out_stride")
    for (name, kernel, integers), kind in itertools.product(
        (
            ("moe_gate_up", moe_gate_up_kernel, ("depth", "inner")),
            ("moe_down", moe_down_kernel, ("depth", "num_columns")),
        ),
        ("", "i8", "fp8e4nv"),
    ):
        codes = kind != ""
        tilings = [default_tiling(name, itemsize, rows, codes=codes) for rows in ROWS]
        of_key = tiling_key(itemsize, 0, codes=codes).removesuffix("0")
        for key, tiling in known_tilings(name):
            if key.startswith(of_key):
                tilings.append(tiling)
        more = {"TOP_K": 8} if name == "moe_gate_up" else {}
        unlike = [t for place, t in enumerate(tilings) if t not in tilings[:place]]
        for tiling, even in [(t, True) for t in unlike] + [(unlike[0], False)]:
            shape = "x".join(str(n) for n in tiling.sizes.values())
            rows = tiling.sizes["BLOCK_ROWS"]
            yield Form(
                name=f"{name} {f'{kind} ' if kind else ''}{shape} even={even:d} rows={rows}",
                kernel=kernel,
                types={
                    **dict.fromkeys(("x_ptr", "out_ptr"), f"*{number}"),
                    "weight_ptr": f"*{kind or number}",
                    "scales_ptr": "*fp32",
                    **dict.fromkeys(listed, "*i32"),
                    **dict.fromkeys(("num_tiles", *strides, *integers), "i32"),
                },
                constants={
                    **more,
                    "EVEN": even,
                    "CODES": codes,
                    "GROUP": GROUP_TILES,
                    "WIDEN": False,
                    **tiling.sizes,
                },
                num_warps=tiling.num_warps,
                num_stages=tiling.num_stages,
            )
    yield Form(
        name="moe_combine top_k=8",
        kernel=moe_combine_kernel,
        types={
            **dict.fromkeys(("parts_ptr", "out_ptr"), f"*{number}"),
            "weights_ptr": "*fp32",
            "experts_ptr": "*i32",
            **dict.fromkeys(("size", "num_experts"), "i32"),
        },
        constants={"TOP_K": 8, "BLOCK": COMBINED},
        num_warps=4,
        num_stages=3,
    )
