"""This file is about starting Triton kernels: where, one at a time or not, and in which forms.

A form is one way a kernel is compiled: types of its arguments and values of its constants. Wrappers
and the ahead-of-time check (`aot.py`) take the constants from the same functions, so that what is
checked without a GPU is what runs on one.

Under `TRITON_INTERPRET=1` kernels run in Python. That interpreter takes bf16 numbers for integers
inside `tl.dot` (triton-lang/triton issue 11584), so kernels widen to fp32 there, and two threads in
it disturb each other, so launches take turns.
"""

import functools
import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Pointers to lengths, tables, slots and blocks' ids: an engine passes parts of its buffers, whose
# addresses are multiples of 16 in one step and not in the next. Nothing is gained by compiling for
# both.
INDEX_POINTERS = (
    *("tables_ptr", "lens_ptr", "starts_ptr", "span_ends_ptr", "bounds_ptr", "slots_ptr"),
    *("ids_ptr", "src_ids_ptr", "dst_ids_ptr"),
)
LOG2_E = 1.4426950408889634  # exp(x) = 2 ** (x · LOG2_E): GPUs have exp2 in hardware

_turn = threading.Lock()


def launching_on(tensor: Tensor) -> AbstractContextManager[Any]:
    """The context to launch in: `tensor`'s device made current, or the interpreter's turn taken."""
    if tensor.is_cuda and not INTERPRETED:
        return torch.cuda.device(tensor.device)
    return _turn


@functools.cache
def num_multiprocessors(device: torch.device) -> int:
    """How many programs the device runs side by side at least; 1 where there is no GPU."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size`.

    >>> [power_of_two(n) for n in (0, 1, 5, 64)]
    [1, 1, 8, 64]
    """
    return 1 << max(size - 1, 0).bit_length()


def divided_up(size: int, part: int) -> int:
    """How many parts cover `size`.

    >>> divided_up(9, 4)
    3
    """
    return -(-size // part)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to compile a kernel.

    types      the arguments known only at run time, in order: "*bf16", "i32", "fp32", …
    constants  the kernel's `tl.constexpr` parameters
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, int | bool | float]
    num_warps: int
    num_stages: int
