"""This file is about whether an op is right on this device, before it is timed: against its twin,
on the same inputs, in memory that holds no answer yet.

Whatever the op allocates is filled with NaN, or the largest integer, first, so that what it forgets
to write shows. Tensors that it writes in place are compared whole: also what it must leave alone.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from bench_ops import Case
from torch import Tensor

# ‖op − twin‖ / ‖twin‖ of a whole tensor; any one row may err by ROWS times that
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}
ROWS = 4.0
INDICES = (torch.int32, torch.int64, torch.bool)
UNEQUAL = 0.01  # of chosen indices: two sums that round apart may choose otherwise
SAMPLED = 0.05  # a draw that falls into the rounding of a sum of 151,936 numbers


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """torch fills what it allocates; a switch for all of it comes with its deterministic mode."""
    was_on = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ops without a deterministic form, which is no matter
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_on)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def check(case: Case, dtype: torch.dtype) -> str:
    """ "" if op and twin agree; else what is wrong. What they write is as before afterwards."""
    changed = (*case.written, *case.spoilt)
    before = [tensor.clone() for tensor in changed]

    def outcome(run: Any) -> tuple[Any, ...]:
        found = (run(), *case.written)
        copied = tuple(_copied(part) for part in found)
        for tensor, held in zip(changed, before, strict=True):
            tensor.copy_(held)
        return copied

    want = outcome(case.twin)
    with poisoned():
        got = outcome(case.run)
    if any(torch.equal(*pair) for pair in zip(want[1:], before, strict=False)):
        return "the twin writes what was there already: this case shows nothing"
    most = SAMPLED if case.name.startswith("sample_tokens") else UNEQUAL
    return wrong(got, want, TOLERANCE[dtype], most)


def _copied(found: Any) -> Any:
    """What shares memory with an argument would change with it."""
    if isinstance(found, Tensor):
        return found.clone()
    if isinstance(found, tuple):
        return tuple(map(_copied, found))
    return found


def wrong(got: Any, want: Any, tolerance: float, unequal: float = UNEQUAL) -> str:
    """What tells `got` from `want`, tensors in nested tuples; "" if nothing does."""
    if isinstance(want, tuple):
        each = (wrong(a, b, tolerance, unequal) for a, b in zip(got, want, strict=True))
        return next((words for words in each if words), "")
    if not isinstance(want, Tensor):
        return ""
    if got.shape != want.shape or got.dtype is not want.dtype:
        return f"{list(got.shape)} {got.dtype} instead of {list(want.shape)} {want.dtype}"
    if want.dtype in INDICES:
        share = (got != want).double().mean().item() if want.numel() else 0.0
        return "" if share <= unequal else f"{100 * share:.0f} % of the choices are not the twin's"
    whole, row = relative_errors(got, want)
    if not whole <= tolerance:  # NaN is none
        return f"relative error {whole:.1e}"
    return "" if row <= ROWS * tolerance else f"relative error {row:.1e} in one row"


def relative_errors(got: Tensor, want: Tensor) -> tuple[float, float]:
    """‖got − want‖ / ‖want‖ of the tensor, and the largest of its rows (last dimension).

    A row of small numbers is measured by the mean row, not by itself. NaN counts as infinite.
    """
    if not want.numel():
        return 0.0, 0.0
    wide = want.float().reshape(-1, want.shape[-1]) if want.dim() else want.float().reshape(1, 1)
    off = torch.linalg.vector_norm(got.float().reshape(wide.shape) - wide, dim=1)
    norms = torch.linalg.vector_norm(wide, dim=1)
    mean = norms.square().mean().sqrt().clamp(min=1e-30)
    whole = (off.square().mean().sqrt() / mean).item()
    row = (off / torch.maximum(norms, mean)).amax().item()
    return tuple(x if x == x else float("inf") for x in (whole, row))  # type: ignore[return-value]
