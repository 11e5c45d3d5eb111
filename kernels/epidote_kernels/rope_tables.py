"""This file is about the cosines and sines of rotary positions, in one dimension or three.

Once per step, not per layer, so plain torch everywhere; all of it can be captured in a CUDA graph.

Sources: RoFormer, Su et al., 2021; three-dimensional positions: Qwen2-VL, Wang et al., 2024;
interleaved sections: Qwen3-VL technical report, 2025.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def rope_table(inv_freq: Tensor, max_positions: int, *, attention_scaling: float = 1.0) -> Tensor:
    """Cosines and sines of every position below `max_positions`.

    inv_freq           [D/2]  float32
    attention_scaling  multiplies both (YaRN and its kin; 1.0 elsewhere)
    returns            [max_positions, D]  float32; D/2 cosines, then D/2 sines

    Raises:
        ValueError: `inv_freq` is not one-dimensional, or `max_positions` is negative.
    """
    if inv_freq.dim() != 1:
        raise ValueError(f"inv_freq: must have shape [D/2], got {list(inv_freq.shape)}")
    if max_positions < 0:
        raise ValueError(f"max_positions: must be >= 0, got {max_positions}")
    positions = torch.arange(max_positions, dtype=torch.float32, device=inv_freq.device)
    angles = positions.unsqueeze(1) * inv_freq.float()
    return torch.cat((angles.cos(), angles.sin()), 1).mul_(attention_scaling)


def rope_cos_sin(table: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `rope_table` for a step's tokens.

    table      [max_positions, D]  float32
    positions  [T]  int64, each below max_positions
    returns    cos and sin, each [T, D/2] float32: views of one [T, D] tensor
    Traffic: 8·T·D bytes.

    Raises:
        ValueError: a wrong number of dimensions. A position past the table is the caller's bug:
            torch refuses it on a CPU, a GPU stops with a device-side assertion.
    """
    if table.dim() != 2 or positions.dim() != 1:
        raise ValueError(
            f"table, positions: must have shapes [P, D] and [T], "
            f"got {list(table.shape)} and {list(positions.shape)}"
        )
    cos, sin = table.index_select(0, positions).chunk(2, 1)
    return cos, sin


def mrope_cos_sin(
    table: Tensor, positions: Tensor, sections: Sequence[int], interleaved: bool
) -> tuple[Tensor, Tensor]:
    """Like `rope_cos_sin` for tokens with a time, a height and a width position.

    table        [max_positions, D]  float32
    positions    [3, T]  int64: time, height, width
    sections     number of frequencies that follow time, height and width; they sum to D/2
    interleaved  False: contiguous sections t…t h…h w…w (Qwen2.5-VL). True: t h w t h w … for as
                 long as height and width have frequencies left, then time only (Qwen3-VL)
    returns      cos and sin, each [T, D/2] float32

    Raises:
        ValueError: shapes do not fit, or `sections` are not three that sum to D/2.
    """
    if table.dim() != 2 or positions.dim() != 2 or positions.shape[0] != 3:
        raise ValueError(
            f"table, positions: must have shapes [P, D] and [3, T], "
            f"got {list(table.shape)} and {list(positions.shape)}"
        )
    half = table.shape[1] // 2
    if len(sections) != 3 or sum(sections) != half:
        raise ValueError(f"sections: must be three that sum to {half}, got {tuple(sections)}")
    axis = _axis_of_frequency(tuple(sections), interleaved, table.device)
    # One entry of the table per token and column: row = that column's position, column = itself.
    rows = positions.index_select(0, axis).t()
    both = table.gather(0, rows)
    cos, sin = both.chunk(2, 1)
    return cos, sin


@functools.lru_cache(maxsize=32)
def _axis_of_frequency(
    sections: tuple[int, ...], interleaved: bool, device: torch.device
) -> Tensor:
    """int64 [D]: 0, 1 or 2 for every column of the table, cosines and sines alike."""
    time, height, width = sections
    if interleaved:
        axes = [0] * (time + height + width)
        for axis, count in ((1, height), (2, width)):
            for frequency in range(axis, min(3 * count, len(axes)), 3):
                axes[frequency] = axis
    else:
        axes = [0] * time + [1] * height + [2] * width
    return torch.tensor(axes * 2, device=device)
