"""This file is about which replica of an expert takes a token, on a GPU and without waiting for it.

Tokens go to an expert's replicas in turns by their row, so that every device decides alike without
asking. The table is read when the kernel runs: who changes it in place between two steps changes
what a captured CUDA graph does.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import Form, divided_up, launching_on

PAIRS = 256  # of one program


@triton.jit(do_not_specialize=("num_pairs", "width"))
def replica_slots_kernel(
    experts_ptr,
    table_ptr,
    out_ptr,
    num_pairs,
    width,
    TOP_K: tl.constexpr,
    PAIRS: tl.constexpr,
):
    pairs = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    live = pairs < num_pairs
    row = table_ptr + tl.load(experts_ptr + pairs, mask=live, other=0) * width
    replicas = tl.load(row, mask=live, other=1)
    slots = tl.load(row + 1 + (pairs // TOP_K) % replicas, mask=live, other=-1)
    tl.store(out_ptr + pairs, slots, mask=live)


def replica_slots(experts: Tensor, table: Tensor) -> Tensor:
    """The kernel behind `ops.replica_slots`, which checks; twin: `reference.replica_slots`."""
    out = torch.empty_like(experts)
    num_pairs = experts.numel()
    if num_pairs:
        with launching_on(experts):
            replica_slots_kernel[(divided_up(num_pairs, PAIRS),)](
                experts, table, out, num_pairs, table.shape[1],
                TOP_K=experts.shape[1], PAIRS=PAIRS, num_warps=4,
            )  # fmt: skip
    return out


def forms(number: str) -> Iterator[Form]:
    """Compile for usual numbers of experts a token; the same whatever `number` is."""
    for top_k in (6, 8):
        yield Form(
            name=f"replica_slots top_k={top_k}",
            kernel=replica_slots_kernel,
            types={
                **dict.fromkeys(("experts_ptr", "table_ptr", "out_ptr"), "*i32"),
                **dict.fromkeys(("num_pairs", "width"), "i32"),
            },
            constants={"TOP_K": top_k, "PAIRS": PAIRS},
            num_warps=4,
            num_stages=3,
        )
