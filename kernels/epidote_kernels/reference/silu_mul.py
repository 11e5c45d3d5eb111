"""This file is about the gated activation of a SwiGLU block in plain torch.

Source: GLU Variants Improve Transformer, Shazeer, 2020.
"""

import torch
from torch import Tensor


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) · up`, gate being the first half of the last dimension; see `ops.silu_mul`."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate).mul_(up)
