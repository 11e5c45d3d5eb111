"""This file is about the gated activation of a SwiGLU block on a GPU.

Source: GLU Variants Improve Transformer, Shazeer, 2020.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on, power_of_two

BLOCK = 1024  # columns per program: eight 16-byte loads of bf16 a thread; not tuned yet


@triton.jit
def silu_mul_kernel(gate_up_ptr, out_ptr, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < size
    gates = gate_up_ptr + row * 2 * size
    gate = tl.load(gates + columns, mask=mask, other=0.0)
    up = tl.load(gates + size + columns, mask=mask, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    # rounded between the two, as the twin's separate ops do
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    tl.store(out_ptr + row * size + columns, (silu * up).to(gate.dtype), mask=mask)


def silu_mul(gate_up: Tensor) -> Tensor:
    """The kernel behind `ops.silu_mul`, which checks; twin: `reference.silu_mul`."""
    size = gate_up.shape[-1] // 2
    out = torch.empty((*gate_up.shape[:-1], size), dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        block = min(BLOCK, power_of_two(size))
        with launching_on(gate_up):
            silu_mul_kernel[(out.numel() // size, divided_up(size, block))](
                gate_up, out, size, BLOCK=block
            )
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for wide and narrow blocks; `number` is "bf16", …"""
    for block in (256, BLOCK):
        yield Form(
            name=f"silu_mul block={block}",
            kernel=silu_mul_kernel,
            types={"gate_up_ptr": f"*{number}", "out_ptr": f"*{number}", "size": "i32"},
            constants={"BLOCK": block},
            num_warps=4,
            num_stages=3,
        )
