"""This file is about who computes: the Triton kernel or the torch twin.

`EPIDOTE_KERNELS`, read once at import, decides:

| value    | CUDA tensor | other tensor |
| -------- | ----------- | ------------ |
| `auto`   | kernel, or twin without triton | twin |
| `torch`  | twin        | twin |
| `triton` | kernel      | kernel under `TRITON_INTERPRET=1`, else `ValueError` |
"""

import importlib.util
import os
from collections.abc import Mapping

from torch import Tensor


def read_choice(environment: Mapping[str, str], *, has_triton: bool) -> str:
    """The value of `EPIDOTE_KERNELS`, by default "auto", which without triton is "torch".

    Raises:
        ValueError: another value, or "triton" where none is installed.
    """
    choice = environment.get("EPIDOTE_KERNELS", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"EPIDOTE_KERNELS: must be auto, torch or triton, got {choice!r}")
    if choice == "triton" and not has_triton:
        raise ValueError("EPIDOTE_KERNELS: is triton, but no triton is installed")
    return "torch" if choice == "auto" and not has_triton else choice


_CHOICE = read_choice(os.environ, has_triton=importlib.util.find_spec("triton") is not None)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def by_kernel(tensor: Tensor) -> bool:
    """Whether a kernel takes `tensor`; else the twin does.

    Raises:
        ValueError: `EPIDOTE_KERNELS` is "triton", and `tensor` is on no GPU nor in the interpreter.
    """
    if tensor.is_cuda:
        return _CHOICE != "torch"
    if _CHOICE != "triton":
        return False
    if not _INTERPRETED:
        raise ValueError(
            f"EPIDOTE_KERNELS: triton runs tensors on {tensor.device} only under "
            "TRITON_INTERPRET=1, set before the first import"
        )
    return True
