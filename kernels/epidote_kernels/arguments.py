"""This file is about refusing wrong tensors with a message that names them.

Every check reads shapes, strides, types and devices only, never a value, so that none of them waits
for a device. One comparison covers the good case; the words are found when something is wrong.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
MAX_HEAD_DIM = 256  # one head's row must fit a program's registers

# a size, or the name of one that may be anything
Sizes = Sequence[int | str]


def fits(name: str, tensor: Tensor, sizes: Sizes) -> None:
    """Refuse `tensor` unless its shape is `sizes`, where a word stands for any size.

    Raises:
        ValueError: naming the argument, the wanted and the found shape.
    """
    shape = tensor.shape
    if len(shape) != len(sizes) or any(
        want != got for want, got in zip(sizes, shape, strict=True) if not isinstance(want, str)
    ):
        wanted = ", ".join(str(size) for size in sizes)
        raise ValueError(f"{name}: must have shape [{wanted}], got {list(shape)}")


def is_float(name: str, tensor: Tensor) -> None:
    """Refuse anything but fp32, bf16 and fp16.

    Raises:
        ValueError: naming the argument and its dtype.
    """
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{name}: must be float32, bfloat16 or float16, got {tensor.dtype}")


def is_int(name: str, tensor: Tensor, wanted: torch.dtype) -> None:
    """Refuse any other integer type than `wanted`.

    Raises:
        ValueError: naming the argument and its dtype.
    """
    if tensor.dtype is not wanted:
        raise ValueError(f"{name}: must be {wanted}, got {tensor.dtype}")


def are_alike(names: str, first: Tensor, *others: Tensor) -> None:
    """Refuse unless all have the first one's dtype and device.

    Raises:
        ValueError: naming the arguments (`names`, comma-separated) and what they are.
    """
    dtype, device = first.dtype, first.device
    for other in others:
        if other.dtype is not dtype or other.device != device:
            found = ", ".join(f"{x.dtype} on {x.device}" for x in (first, *others))
            raise ValueError(f"{names}: must share one dtype and one device, got {found}")


def are_together(names: str, first: Tensor, *others: Tensor) -> None:
    """Refuse unless all are on the first one's device.

    Raises:
        ValueError: naming the arguments (`names`, comma-separated) and their devices.
    """
    device = first.device
    for other in others:
        if other.device != device:
            found = ", ".join(str(x.device) for x in (first, *others))
            raise ValueError(f"{names}: must be on one device, got {found}")


def rows_are_whole(name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose last dimension is strided.

    Raises:
        ValueError: naming the argument and its strides.
    """
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        raise ValueError(f"{name}: last dimension must have stride 1, got {tensor.stride()}")


def is_contiguous(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is not contiguous.

    Raises:
        ValueError: naming the argument and its strides.
    """
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name}: must be contiguous, got shape {list(tensor.shape)} "
            f"with strides {tensor.stride()}"
        )


def blocks_are_whole(name: str, cache: Tensor) -> None:
    """Refuse a cache whose blocks are not contiguous; the blocks themselves may lie apart.

    Raises:
        ValueError: naming the argument, its shape and strides.
    """
    if not cache.is_contiguous() and not (cache.shape[0] and cache[0].is_contiguous()):
        raise ValueError(
            f"{name}: every block must be contiguous, got shape {list(cache.shape)} "
            f"with strides {cache.stride()}"
        )


@functools.cache
def _knows_e4m3(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


def codes_are_supported(name: str, cache: Tensor) -> None:
    """Refuse e4m3 numbers on a GPU that cannot convert them.

    Raises:
        ValueError: naming the argument and the device.
    """
    if cache.dtype is torch.float8_e4m3fn and not _knows_e4m3(cache.device):
        raise ValueError(
            f"{name}: float8_e4m3fn needs compute capability 8.9, got {cache.device} "
            f"{torch.cuda.get_device_capability(cache.device)}; int8 works there"
        )


def head_dim_is_supported(dim: int) -> None:
    """Refuse a head dimension the kernels have no tile for.

    Raises:
        ValueError: naming the dimension.
    """
    if dim % 8 or not 0 < dim <= MAX_HEAD_DIM:
        raise ValueError(f"head_dim: must be a multiple of 8 up to {MAX_HEAD_DIM}, got {dim}")
