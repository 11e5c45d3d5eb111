"""This file is about the ops that choose the next token of each sequence."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


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
    """One token for each row: temperature, top-k, top-p of what top-k left, min-p, then a draw.

    logits       [N, V]  fp, last dimension of stride 1; -inf: never
    temperature  [N]  fp32, >= 0; 0 takes the best token, the first of equals
    top_k        [N]  int32; 0: every token.   top_p  [N]  fp32 in [0, 1]; 1: every token, 0: the
                 best token and its equals
    min_p        [N]  fp32 in [0, 1], relative to the best token's probability
    seeds, choices, positions  [N]  int64; their bits alone decide the draw
    returns      [N]  int64; -1 where there is nothing to choose from: NaN or infinity among a
                 row's logits (divided by its temperature), or no token that stays
    Tokens of equal value stay or go together.
    Traffic: V·itemsize bytes a row from device memory, then the same from L2 in each of up to 36
    passes (three without top-k and top-p).
    Twin: reference.sample_tokens.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits: must have shape [N, V], got {list(logits.shape)}")
    arguments.is_float("logits", logits)
    rows = (logits.shape[0],)
    for name, tensor, dtype in (
        ("temperature", temperature, torch.float32),
        ("top_k", top_k, torch.int32),
        ("top_p", top_p, torch.float32),
        ("min_p", min_p, torch.float32),
        ("seeds", seeds, torch.int64),
        ("choices", choices, torch.int64),
        ("positions", positions, torch.int64),
    ):
        _check(name, tensor, rows, dtype)
    every = (temperature, top_k, top_p, min_p, seeds, choices, positions)
    arguments.are_together("logits and the rows' parameters", logits, *every)
    if by_kernel(logits):
        arguments.rows_are_whole("logits", logits)
        from epidote_kernels.sampling import sample_tokens as kernel

        return kernel(logits, *every)
    return reference.sample_tokens(logits, *every)


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
    """Make tokens that were there before less likely. Mutates `logits` in the given rows.

    logits      [N, V]  fp32, last dimension of stride 1
    rows        [M]  int64, distinct rows of logits;  slots  [M]  int64, their rows of the tables
    counts      [R, V]  int32: how often each token was output.  in_prompt  [R, V]  bool
    repetition  [M]  fp32 > 0: seen tokens' logits are divided by it, negative ones multiplied
    frequency   [M]  fp32, subtracted for each time;  presence  [M]  fp32, subtracted once
    Traffic: 13·M·V bytes.
    Twin: reference.apply_penalties. Source of repetition: CTRL, Keskar et al., 2019.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if logits.dim() != 2 or logits.dtype is not torch.float32:
        raise ValueError(
            f"logits: must have shape [N, V] in float32, got {list(logits.shape)} {logits.dtype}"
        )
    vocab, many = logits.shape[1], tuple(rows.shape[:1])
    _check("rows", rows, many, torch.int64)
    _check("slots", slots, many, torch.int64)
    for name, tensor in (
        ("repetition", repetition),
        ("frequency", frequency),
        ("presence", presence),
    ):
        _check(name, tensor, many, torch.float32)
    _check("counts", counts, (counts.shape[0], vocab), torch.int32)
    _check("in_prompt", in_prompt, tuple(counts.shape), torch.bool)
    every = (rows, slots, counts, in_prompt, repetition, frequency, presence)
    arguments.are_together("logits and the tables", logits, *every)
    if by_kernel(logits):
        arguments.rows_are_whole("logits", logits)
        from epidote_kernels.sampling import apply_penalties as kernel

        return kernel(logits, *every)
    return reference.apply_penalties(logits, *every)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    arguments.fits(name, tensor, shape)
    if tensor.dtype is not dtype:
        raise ValueError(f"{name}: must be {dtype}, got {tensor.dtype}")
    arguments.is_contiguous(name, tensor)
