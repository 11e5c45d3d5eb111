"""This file is about KV numbers in one byte: signed integers or e4m3 floats, times a head's scale.

A cache of codes holds `round(x / scale)`, one scale per KV head for keys and one for values. Scores
are linear in the key and outputs in the value, so attention reads codes as they are and multiplies
by the scales once per head, not once per number.

Sources: FP8 Formats for Deep Learning, Micikevicius et al., 2022 (e4m3: 448 is its largest);
per-head scales, as KIVI and its kin use coarse scales for 8 bits: Liu et al., ICML 2024.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

PLAIN, INT8, FP8 = 0, 1, 2  # values of the kernels' constant CODES
_TYPES = {torch.int8: INT8, torch.float8_e4m3fn: FP8}
POINTERS = {PLAIN: "", INT8: "*i8", FP8: "*fp8e4nv"}  # in a form; a plain cache is like q


def codes_of(cache: Tensor) -> int:
    """The kernels' constant for a cache: what one of its numbers is."""
    return _TYPES.get(cache.dtype, PLAIN)


@triton.jit
def to_int8(x):
    """The nearest integer in [-127, 127], ties to even; x is fp32."""
    x = tl.minimum(tl.maximum(x, -127.0), 127.0)
    # at 1.5 · 2 ** 23 the last place of fp32 is 1: adding rounds as the hardware does
    return ((x + 12582912.0) - 12582912.0).to(tl.int8)


@triton.jit
def to_fp8(x):
    """The nearest e4m3 number in [-448, 448], ties to even; x is fp32.

    Rounded by arithmetic first, so that the cast is exact: the interpreter's own does not round
    small numbers as the hardware does. NaN stays NaN (by its bits, since casts differ there, too):
    a broken key must not look like a sound one.
    """
    is_number = x == x
    x = tl.minimum(tl.maximum(x, -448.0), 448.0)
    power = x.to(tl.int32, bitcast=True) & 0x7F800000
    power = tl.maximum(power, 121 << 23)  # below 2 ** -6 the places stay as wide as there
    place = power.to(tl.float32, bitcast=True) * 0.125  # three bits after the leading one
    x = x / place
    x = (x + 12582912.0) - 12582912.0
    bits = (x * place).to(tl.float8e4nv).to(tl.int8, bitcast=True)
    return tl.where(is_number, bits, 0x7F).to(tl.int8).to(tl.float8e4nv, bitcast=True)


@triton.jit
def query_for(q, CODES: tl.constexpr, WIDEN: tl.constexpr):
    """`q` in the type that its products with a cache's numbers are taken in.

    e4m3 becomes fp16 in one instruction for two numbers, and bf16 in two more; int8 becomes bf16
    without a conversion. So e4m3 is multiplied in fp16, which is finer, and wide enough: a query's
    elements stay far below 65,504.
    """
    if WIDEN:
        q = q.to(tl.float32)
    elif CODES == 2 and q.dtype == tl.bfloat16:
        q = q.to(tl.float16)
    return q


@triton.jit
def encoded(x, scale, kind, CODES: tl.constexpr):
    """What a cache of `kind` holds for `x`; `scale` broadcasts against it."""
    if CODES == 0:
        codes = x.to(kind)
    elif CODES == 1:
        codes = to_int8(x.to(tl.float32) / scale)
    else:
        codes = to_fp8(x.to(tl.float32) / scale)
    return codes
