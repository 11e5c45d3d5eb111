"""This file is about moving whole KV blocks on a GPU: between caches, out of one, back into one.

Bits are moved, not numbers: tensors are seen as integers of the same width.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import (
    INDEX_POINTERS,
    Form,
    divided_up,
    launching_on,
    power_of_two,
)

BYTES = 8192  # a program's share of a block: four 16-byte loads a thread; not tuned yet
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit(do_not_specialize_on_alignment=INDEX_POINTERS)
def copy_blocks_kernel(
    src_ptr,
    dst_ptr,
    src_ids_ptr,
    dst_ids_ptr,
    src_stride,
    dst_stride,
    size,
    FROM_IDS: tl.constexpr,
    TO_IDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    src, dst = index, index
    if FROM_IDS:
        src = tl.load(src_ids_ptr + index).to(tl.int64)
    if TO_IDS:
        dst = tl.load(dst_ids_ptr + index).to(tl.int64)
    there = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = there < size
    bits = tl.load(src_ptr + src * src_stride + there, mask=mask)
    tl.store(dst_ptr + dst * dst_stride + there, bits, mask=mask)


def copy_blocks(src_cache: Tensor, dst_cache: Tensor, src_ids: Tensor, dst_ids: Tensor) -> None:
    """The kernel behind `ops.copy_blocks`, which checks; twin: `reference.copy_blocks`."""
    _launch(src_cache, dst_cache, src_ids, dst_ids)


def gather_blocks(cache: Tensor, ids: Tensor) -> Tensor:
    """The kernel behind `ops.gather_blocks`, which checks; twin: `reference.gather_blocks`."""
    packed = torch.empty((ids.shape[0], *cache.shape[1:]), dtype=cache.dtype, device=cache.device)
    _launch(cache, packed, ids, None)
    return packed


def scatter_blocks(cache: Tensor, ids: Tensor, packed: Tensor) -> None:
    """The kernel behind `ops.scatter_blocks`, which checks; twin: `reference.scatter_blocks`."""
    _launch(packed, cache, None, ids)


def _launch(src: Tensor, dst: Tensor, src_ids: Tensor | None, dst_ids: Tensor | None) -> None:
    ids = src_ids if src_ids is not None else dst_ids
    assert ids is not None
    size = src[0].numel() if src.shape[0] else 0
    if not ids.shape[0] or not size:
        return
    block = min(BYTES // src.element_size(), power_of_two(size))
    kind = INTEGERS[src.element_size()]
    with launching_on(src):
        copy_blocks_kernel[(ids.shape[0], divided_up(size, block))](
            src.view(kind),
            dst.view(kind),
            ids if src_ids is None else src_ids.contiguous(),
            ids if dst_ids is None else dst_ids.contiguous(),
            src.stride(0),
            dst.stride(0),
            size,
            FROM_IDS=src_ids is not None,
            TO_IDS=dst_ids is not None,
            BLOCK=block,
        )


def forms(number: str) -> Iterator[Form]:
    """Compile the three directions; `number` gives the width only."""
    width = {"fp32": "i32", "fp16": "i16", "bf16": "i16"}[number]
    for name, from_ids, to_ids in (
        ("copy_blocks", True, True),
        ("gather_blocks", True, False),
        ("scatter_blocks", False, True),
    ):
        yield Form(
            name=name,
            kernel=copy_blocks_kernel,
            types={
                "src_ptr": f"*{width}",
                "dst_ptr": f"*{width}",
                "src_ids_ptr": "*i64",
                "dst_ids_ptr": "*i64",
                "src_stride": "i32",
                "dst_stride": "i32",
                "size": "i32",
            },
            constants={
                "FROM_IDS": from_ids,
                "TO_IDS": to_ids,
                "BLOCK": BYTES // (4 if width == "i32" else 2),
            },
            num_warps=4,
            num_stages=3,
        )
