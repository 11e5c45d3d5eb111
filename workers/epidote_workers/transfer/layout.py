"""This file is about what two pools must agree on before one is copied into the other.

Every pool is seen as [layers, parts, index, unit]: KV as [layers, 2, num_blocks, block_size · heads
· head_dim], embeddings as [1, 1, num_rows, width]. What is copied is `index`, a range of layers at
a time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from epidote_core.errors import EpidoteError

if TYPE_CHECKING:  # gateways read messages that name layouts, and have no use for torch
    import torch

KV_POOL = "kv"
MEDIA_POOL = "media"


class LayoutMismatch(EpidoteError):
    """Two workers' pools hold different things: other model, dtype, or block size."""


@dataclass(frozen=True, kw_only=True)
class PoolLayout:
    """A pool's description. `fingerprint` names model and revision of the content's meaning."""

    name: str  # KV_POOL or MEDIA_POOL
    dtype: str  # "float32", "bfloat16", "float16"; KV codes: "int8", "float8_e4m3fn"
    num_layers: int
    num_parts: int
    num_units: int  # blocks or rows
    unit_values: int  # numbers in one unit of one layer and part
    block_size: int  # tokens per unit
    fingerprint: str
    num_heads: int = 1  # that share a unit, after its tokens

    @property
    def torch_dtype(self) -> "torch.dtype":
        """What units are copied as: numbers of one byte as integers, since torch cannot index
        e4m3 everywhere."""
        import torch

        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return torch.int8 if dtype.itemsize == 1 else dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.num_layers, self.num_parts, self.num_units, self.unit_values)

    @property
    def unit_bytes(self) -> int:
        """Bytes of one unit of one layer, all parts."""
        return self.num_parts * self.unit_values * self.torch_dtype.itemsize

    @property
    def num_bytes(self) -> int:
        return self.num_layers * self.num_units * self.unit_bytes


def kv_layout(tensor: "torch.Tensor", fingerprint: str) -> PoolLayout:
    """Of a KV pool [layers, 2, num_blocks, block_size, kv_heads, head_dim]."""
    layers, parts, blocks, block_size, heads, width = tensor.shape
    return PoolLayout(
        name=KV_POOL,
        dtype=_name(tensor.dtype),
        num_layers=layers,
        num_parts=parts,
        num_units=blocks,
        unit_values=block_size * heads * width,
        block_size=block_size,
        fingerprint=fingerprint,
        num_heads=heads,
    )


def media_layout(tensor: "torch.Tensor", fingerprint: str) -> PoolLayout:
    """Of a media pool [num_rows, width]."""
    rows, width = tensor.shape
    return PoolLayout(
        name=MEDIA_POOL,
        dtype=_name(tensor.dtype),
        num_layers=1,
        num_parts=1,
        num_units=rows,
        unit_values=width,
        block_size=1,
        fingerprint=fingerprint,
    )


def as_units(tensor: "torch.Tensor", layout: PoolLayout) -> "torch.Tensor":
    """The pool as [layers, parts, index, unit], sharing memory."""
    return tensor.view(layout.torch_dtype).view(layout.shape)


def as_blocks(units: "torch.Tensor", layout: PoolLayout) -> "torch.Tensor":
    """Units as [layers, parts, index, tokens, heads, width], sharing memory."""
    per_token = layout.num_heads, layout.unit_values // (layout.block_size * layout.num_heads)
    return units.view(*units.shape[:3], layout.block_size, *per_token)


def check_same(ours: PoolLayout, theirs: PoolLayout) -> None:
    """Pools may differ in size alone.

    Raises:
        LayoutMismatch: naming everything that differs.
    """
    fields = (
        "name",
        "dtype",
        "num_layers",
        "num_parts",
        "unit_values",
        "block_size",
        "num_heads",
        "fingerprint",
    )
    differences = [
        f"{field}: {getattr(theirs, field)!r} there, {getattr(ours, field)!r} here"
        for field in fields
        if getattr(ours, field) != getattr(theirs, field)
    ]
    if differences:
        raise LayoutMismatch(f"pool {ours.name!r} of another kind: {'; '.join(differences)}")


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")
