"""This file is about choosing tokens from logits on a GPU, without sorting the vocabulary.

Top-k, top-p and min-p all keep the tokens above a value. That value is found by bisection over the
32 bits of a float, two bits a pass: the number (top-k) or the mass (top-p) of the tokens above a
candidate says on which side the value lies. The logits of a row, some 300 KB, stay in L2 between
passes. A row that asks for no filter takes three passes.

The draw inverts the cumulative distribution in vocabulary order at a number that follows from
(seed, choice, position) alone, as on a CPU: the same token comes out unless the number falls into
the rounding of a sum.

Sources: as in `reference.sampling`; bisection instead of sorting: FlashInfer (Ye et al., MLSys
2025) draws and rejects to the same end.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on, power_of_two

BLOCK = 4096  # columns at a time: eight values a thread of sixteen warps; not tuned yet
PENALTY_BLOCK = 1024  # columns of one program of penalties: with 4,096 it takes all 255 registers
NUM_WARPS = 16  # one program a row: it needs every thread of a multiprocessor's share
LOWEST_KEY = tl.constexpr(-(2**31) - 1)  # below the key of minus infinity


@triton.jit
def order_key(x):
    """An int64 that orders as the float does."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)  # -0.0 + 0.0 is 0.0: the two zeros are equal
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)


@triton.jit
def scaled_logits(row_ptr, columns, mask, temperature):
    x = tl.load(row_ptr + columns, mask=mask, other=float("-inf")).to(tl.float32)
    return tl.div_rn(x, temperature)


@triton.jit
def filter_key(
    row_ptr, vocab, temperature, best, least_key, limit, BY_MASS: tl.constexpr, BLOCK: tl.constexpr
):
    """The least key such that the tokens above it, of those from `least_key` on, measure less than
    `limit`: their number, or their mass relative to the best token's."""
    low = tl.full([], LOWEST_KEY, tl.int64)
    high = order_key(best)
    while high - low > 1:
        first = low + (high - low) // 4
        second = low + (high - low) // 2
        third = low + (high - low) * 3 // 4
        above_first = tl.zeros([BLOCK], tl.float32)
        above_second = tl.zeros([BLOCK], tl.float32)
        above_third = tl.zeros([BLOCK], tl.float32)
        for start in range(0, vocab, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < vocab
            x = scaled_logits(row_ptr, columns, inside, temperature)
            key = order_key(x)
            measure = tl.where(inside & (key >= least_key), 1.0, 0.0)
            if BY_MASS:
                measure *= tl.exp(x - best)
            above_first += tl.where(key > first, measure, 0.0)
            above_second += tl.where(key > second, measure, 0.0)
            above_third += tl.where(key > third, measure, 0.0)
        fits_first = tl.sum(above_first) < limit
        fits_second = tl.sum(above_second) < limit
        fits_third = tl.sum(above_third) < limit
        low = tl.where(
            fits_first, low, tl.where(fits_second, first, tl.where(fits_third, second, third))
        )
        high = tl.where(
            fits_first, first, tl.where(fits_second, second, tl.where(fits_third, third, high))
        )
    return high


@triton.jit
def mixed_bits(state):
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB
    return state ^ (state >> 31)


@triton.jit
def uniform_number(seed, choice, position):
    """SplitMix64 over three counters, each uint64; fp64 in [0, 1)."""
    step = tl.full([], 0x9E3779B97F4A7C15, tl.uint64)
    state = mixed_bits(seed + step)
    state = mixed_bits(state ^ ((choice + 1) * step))
    state = mixed_bits(state + (position + 1) * step)
    return (state >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def sample_tokens_kernel(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    seeds_ptr,
    choices_ptr,
    positions_ptr,
    out_ptr,
    row_stride,
    vocab,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    row_ptr = logits_ptr + row.to(tl.int64) * row_stride
    asked = tl.load(temperature_ptr + row)
    temperature = tl.where(asked == 0, 1.0, tl.maximum(asked, 1e-6))

    best_of = tl.full([BLOCK], float("-inf"), tl.float32)
    where_best = tl.zeros([BLOCK], tl.int32)
    num_nan = tl.zeros([BLOCK], tl.int32)
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = scaled_logits(row_ptr, columns, columns < vocab, temperature)
        num_nan += (x != x).to(tl.int32)
        is_better = x > best_of
        best_of = tl.where(is_better, x, best_of)
        where_best = tl.where(is_better, columns, where_best)
    best = tl.max(best_of, axis=0)
    chosen = tl.min(tl.where(best_of == best, where_best, 2147483647), axis=0)

    # infinite both ways: every token ruled out, or an overflow. No draw could end well.
    is_sound = (tl.sum(num_nan) == 0) & (best > float("-inf")) & (best < float("inf"))
    if is_sound & (asked != 0):
        top_k = tl.load(top_k_ptr + row)
        top_p = tl.load(top_p_ptr + row)
        least = order_key(best + tl.log(tl.load(min_p_ptr + row)))
        kept_by_k = tl.full([], LOWEST_KEY, tl.int64)
        if top_k > 0:
            kept_by_k = filter_key(
                row_ptr, vocab, temperature, best, kept_by_k, top_k.to(tl.float32), False, BLOCK
            )
        if top_p < 1:
            mass = tl.zeros([BLOCK], tl.float32)
            for start in range(0, vocab, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                x = scaled_logits(row_ptr, columns, columns < vocab, temperature)
                mass += tl.where(order_key(x) >= kept_by_k, tl.exp(x - best), 0.0)
            limit = top_p * tl.sum(mass)
            by_p = filter_key(row_ptr, vocab, temperature, best, kept_by_k, limit, True, BLOCK)
            least = tl.maximum(least, by_p)
        least = tl.maximum(least, kept_by_k)

        total = tl.zeros([], tl.float64)
        last = tl.zeros([], tl.int32)
        for start in range(0, vocab, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            x = scaled_logits(row_ptr, columns, columns < vocab, temperature)
            weight = tl.where(order_key(x) >= least, tl.exp(x - best), 0.0)
            total += tl.sum(weight.to(tl.float64))
            last = tl.maximum(last, tl.max(tl.where(weight > 0, columns, 0), axis=0))
        seed = tl.load(seeds_ptr + row).to(tl.uint64, bitcast=True)
        choice = tl.load(choices_ptr + row).to(tl.uint64, bitcast=True)
        position = tl.load(positions_ptr + row).to(tl.uint64, bitcast=True)
        target = uniform_number(seed, choice, position) * total
        running = tl.zeros([], tl.float64)
        drawn = tl.zeros([], tl.int32)  # how many tokens the target lies behind: the index
        for start in range(0, vocab, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < vocab
            x = scaled_logits(row_ptr, columns, inside, temperature)
            weight = tl.where(order_key(x) >= least, tl.exp(x - best), 0.0).to(tl.float64)
            passed = running + tl.cumsum(weight, axis=0) <= target
            drawn += tl.sum((passed & inside).to(tl.int32))
            running += tl.sum(weight)
        chosen = tl.minimum(drawn, last)  # sums that round apart must not lead past the last one
        is_sound = total > 0
    tl.store(out_ptr + row, tl.where(is_sound, chosen, -1).to(tl.int64))


@triton.jit
def apply_penalties_kernel(
    logits_ptr,
    rows_ptr,
    slots_ptr,
    counts_ptr,
    in_prompt_ptr,
    repetition_ptr,
    frequency_ptr,
    presence_ptr,
    row_stride,
    vocab,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < vocab
    places = logits_ptr + tl.load(rows_ptr + index) * row_stride + columns
    slot = tl.load(slots_ptr + index) * vocab
    x = tl.load(places, mask=inside, other=0.0)
    said = tl.load(counts_ptr + slot + columns, mask=inside, other=0)
    prompted = tl.load(in_prompt_ptr + slot + columns, mask=inside, other=0)
    factor = tl.load(repetition_ptr + index)
    x = tl.where((said > 0) | (prompted != 0), tl.where(x > 0, tl.div_rn(x, factor), x * factor), x)
    x -= said.to(tl.float32) * tl.load(frequency_ptr + index)
    x -= tl.where(said > 0, tl.load(presence_ptr + index), 0.0)
    tl.store(places, x, mask=inside)


def sample_tokens(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
) -> Tensor:
    """The kernel behind `ops.sample_tokens`, which checks; twin: `reference.sample_tokens`."""
    rows, vocab = logits.shape
    out = torch.zeros(rows, dtype=torch.int64, device=logits.device)
    if logits.numel():
        with launching_on(logits):
            sample_tokens_kernel[(rows,)](
                logits, temperature, top_k, top_p, min_p, seeds, choices, positions, out,
                logits.stride(0), vocab,
                BLOCK=min(BLOCK, power_of_two(vocab)), num_warps=NUM_WARPS,
            )  # fmt: skip
    return out


def apply_penalties(
    logits: Tensor,
    rows: Tensor,
    slots: Tensor,
    counts: Tensor,
    in_prompt: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> None:
    """The kernel behind `ops.apply_penalties`, which checks; twin: `reference.apply_penalties`."""
    vocab = logits.shape[1]
    if not rows.shape[0] or not vocab:
        return
    block = min(PENALTY_BLOCK, power_of_two(vocab))
    with launching_on(logits):
        apply_penalties_kernel[(rows.shape[0], divided_up(vocab, block))](
            logits, rows, slots, counts, in_prompt.view(torch.uint8),
            repetition, frequency, presence, logits.stride(0), vocab, BLOCK=block,
        )  # fmt: skip


def forms(number: str) -> Iterator[Form]:
    """Compile both; penalties know fp32 alone, and are built as that for every `number`."""
    yield Form(
        name="sample_tokens",
        kernel=sample_tokens_kernel,
        types={
            "logits_ptr": f"*{number}",
            "temperature_ptr": "*fp32",
            "top_k_ptr": "*i32",
            "top_p_ptr": "*fp32",
            "min_p_ptr": "*fp32",
            "seeds_ptr": "*i64",
            "choices_ptr": "*i64",
            "positions_ptr": "*i64",
            "out_ptr": "*i64",
            "row_stride": "i32",
            "vocab": "i32",
        },
        constants={"BLOCK": BLOCK},
        num_warps=NUM_WARPS,
        num_stages=3,
    )
    yield Form(
        name="apply_penalties",
        kernel=apply_penalties_kernel,
        types={
            "logits_ptr": "*fp32",
            "rows_ptr": "*i64",
            "slots_ptr": "*i64",
            "counts_ptr": "*i32",
            "in_prompt_ptr": "*u8",
            "repetition_ptr": "*fp32",
            "frequency_ptr": "*fp32",
            "presence_ptr": "*fp32",
            "row_stride": "i32",
            "vocab": "i32",
        },
        constants={"BLOCK": PENALTY_BLOCK},
        num_warps=4,
        num_stages=3,
    )
