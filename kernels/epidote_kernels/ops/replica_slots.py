"""This file is about the op that finds the slot of a token's expert where slots are fewer or more
than experts: on one of several devices, or with some experts twice."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


def replica_slots(experts: Tensor, table: Tensor) -> Tensor:
    """The slot that computes each pair (token, expert), for `fused_moe` in place of the expert.

    experts  [T, k]  int32, contiguous, from 0 to E - 1, as `moe_route` gives them
    table    [E, 1 + M]  int32, contiguous: how many replicas an expert has, from 1 to M, then the
             slot of each, -1 where it is another device's; what follows them is never read
    returns  [T, k]  int32: that of replica (token's row) modulo (number of replicas)
    Traffic: 16·T·k bytes.
    Twin: reference.replica_slots.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    if experts.dim() != 2 or table.dim() != 2 or table.shape[1] < 2:
        raise ValueError(
            f"experts, table: must have shapes [T, k] and [E, 2 or more], "
            f"got {list(experts.shape)} and {list(table.shape)}"
        )
    arguments.is_int("experts", experts, torch.int32)
    arguments.is_int("table", table, torch.int32)
    if by_kernel(experts):
        arguments.are_together("experts, table", experts, table)
        arguments.is_contiguous("experts", experts)
        arguments.is_contiguous("table", table)
        from epidote_kernels.replica_slots import replica_slots as kernel

        return kernel(experts, table)
    return reference.replica_slots(experts, table)
