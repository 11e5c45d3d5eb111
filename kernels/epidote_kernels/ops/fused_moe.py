"""This file is about the ops of a mixture of experts: who computes a token, and the products."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.reference.quantized_linear import LARGEST

MAX_EXPERTS = 1024  # a row of shares must fit a program's registers
MAX_TOP_K = 32
SCALES = ("scales of gate_up", "scales of down")


def moe_route(logits: Tensor, top_k: int, *, renormalise: bool = True) -> tuple[Tensor, Tensor]:
    """The `top_k` best experts of every token and their weights.

    logits       [T, E]  fp, last dimension of stride 1; E at most 1,024, top_k at most 32
    renormalise  whether a token's weights are divided by their sum
    returns      (weights [T, k] fp32, experts [T, k] int32), best first; softmax in fp32 over all
                 experts. Of equal shares the lowest expert comes first
    Traffic: T·E·itemsize + 8·T·k bytes.
    Twin: reference.moe_route. Source: Shazeer et al., ICLR 2017.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits: must have shape [T, E], got {list(logits.shape)}")
    most = min(logits.shape[1], MAX_TOP_K)
    if not 1 <= top_k <= most:
        raise ValueError(f"top_k: must be from 1 to {most}, got {top_k}")
    if logits.shape[1] > MAX_EXPERTS:
        raise ValueError(f"logits: must have at most {MAX_EXPERTS} experts, got {logits.shape[1]}")
    arguments.is_float("logits", logits)
    if by_kernel(logits):
        arguments.rows_are_whole("logits", logits)
        from epidote_kernels.moe_routing import moe_route as kernel

        return kernel(logits, top_k, renormalise=renormalise)
    return reference.moe_route(logits, top_k, renormalise=renormalise)


def fused_moe(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    *,
    scales: tuple[Tensor, Tensor] | None = None,
    num_everywhere: int = 0,
) -> Tensor:
    """The weighted sum of every token's experts, each `down · (silu(gate · x) · (up · x))`.

    x        [T, N]  fp, last dimension of stride 1
    gate_up  [E, 2·I, N]  like x, contiguous; the gate's rows first
    down     [E, N, I]  like x, contiguous
    scales   None, or for weights of int8 or float8_e4m3fn, both of one type: of gate_up [E, 2·I]
             and of down [E, N], fp32, contiguous, as `quantize_weight` gives them for each expert
    weights  [T, k]  fp32, contiguous, as `moe_route` gives them
    experts  [T, k]  int32, contiguous; any id outside 0 … E-1 is computed elsewhere: it adds
             nothing, and its weight is not read
    num_everywhere  how many experts share the pairs, other devices' included; 0: E. It chooses the
             size of tiles and nothing else
    returns  [T, N]  like x, contiguous; sums in fp32, an expert's rows rounded to x's dtype
    Of 8-bit weights itemsize is 1, and 4·A·(2·I + N) bytes of scales come to it.
    Work: 6·T·k·N·I floating-point operations. Traffic: 3·A·N·I·itemsize bytes of weights, A being
    how many experts are asked, and 2·T·N·itemsize + 2·T·k·(N + I)·itemsize of tokens.
    Twin: reference.fused_moe. Sources: Shazeer et al., ICLR 2017; MegaBlocks, Gale et al., MLSys
    2023.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() != 2 or down.dim() != 3 or experts.dim() != 2:
        raise ValueError(
            f"x, down, experts: must have shapes [T, N], [E, N, I] and [T, k], "
            f"got {list(x.shape)}, {list(down.shape)} and {list(experts.shape)}"
        )
    num_tokens, hidden = x.shape
    num_experts, _, inner = down.shape
    arguments.fits("down", down, (num_experts, hidden, inner))
    arguments.fits("gate_up", gate_up, (num_experts, 2 * inner, hidden))
    arguments.fits("experts", experts, (num_tokens, "k"))
    arguments.fits("weights", weights, experts.shape)
    arguments.is_int("experts", experts, torch.int32)
    if weights.dtype is not torch.float32:
        raise ValueError(f"weights: must be torch.float32, got {weights.dtype}")
    if not 1 <= experts.shape[1] <= MAX_TOP_K:
        raise ValueError(f"experts: k must be from 1 to {MAX_TOP_K}, got {experts.shape[1]}")
    if not inner or not 1 <= num_experts <= MAX_EXPERTS:
        raise ValueError(
            f"down: must have from 1 to {MAX_EXPERTS} experts and an inner size, "
            f"got {list(down.shape)}"
        )
    arguments.is_float("x", x)
    if scales is None:
        arguments.are_alike("x, gate_up, down", x, gate_up, down)
    else:
        _are_codes(gate_up, down, scales)
        arguments.are_together("x, gate_up, down, scales", x, gate_up, down, *scales)
    if by_kernel(x):
        arguments.are_together("x, weights, experts", x, weights, experts)
        arguments.rows_are_whole("x", x)
        for name, tensor in (
            ("gate_up", gate_up),
            ("down", down),
            ("weights", weights),
            ("experts", experts),
            *zip(SCALES, scales or (), strict=False),
        ):
            arguments.is_contiguous(name, tensor)
        from epidote_kernels.fused_moe import fused_moe as kernel

        return kernel(
            x, gate_up, down, weights, experts, scales=scales, num_everywhere=num_everywhere
        )
    return reference.fused_moe(x, gate_up, down, weights, experts, scales=scales)


def _are_codes(gate_up: Tensor, down: Tensor, scales: tuple[Tensor, Tensor]) -> None:
    if gate_up.dtype not in LARGEST or down.dtype is not gate_up.dtype:
        raise ValueError(
            "gate_up, down: with scales both must be int8 or both float8_e4m3fn, "
            f"got {gate_up.dtype} and {down.dtype}"
        )
    for name, scale, weight in zip(SCALES, scales, (gate_up, down), strict=True):
        arguments.fits(name, scale, tuple(weight.shape[:2]))
        arguments.is_int(name, scale, torch.float32)
