"""This file is about where each token of a prompt stands in time, height and width.

Text counts on in all three axes at once. A picture's placeholders share one time and spread over
rows and columns; what follows continues after the longer side, not after the number of tokens, so
positions lag behind token indices by a constant from then on: `delta`, which decoding adds.
Source: multimodal rotary embedding, Qwen2-VL (Wang et al. 2024, arXiv 2409.12191), section 2.1;
absolute time for videos: Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923), section 2.1.2.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from epidote_core.generation import MediaKind, MediaSpan
from epidote_engine.vision.spec import Tower, VisionSpec

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec

Positions = NDArray[np.int64]


def mrope_positions(
    num_tokens: int, media: Sequence[MediaSpan], spec: "ModelSpec"
) -> tuple[Positions, int]:
    """Positions int64 [3, num_tokens] (time, height, width) of a prompt, and `delta`.

    A token generated at index i >= num_tokens has position i + delta in all three axes; the same
    comes out if answer tokens are counted as text of a longer prompt. That is what transformers'
    generate() does. Its get_rope_index agrees except after a video whose time ran ahead of the
    text behind it, where it names a delta that generate() then does not use. A model without
    vision gets 0, 1, 2, … and delta 0.

    Raises:
        ValueError: placeholders overlap, lie outside the prompt, or don't fill their grid.
    """
    positions = np.empty((3, num_tokens), dtype=np.int64)
    token = position = 0
    if spec.vision is not None:
        for offset, block, longest in _blocks(media, spec.vision):
            count = block.shape[1]
            if offset < token or offset + count > num_tokens:
                raise ValueError(
                    f"placeholders [{offset}, {offset + count}) overlap others or leave the "
                    f"prompt of {num_tokens} tokens"
                )
            text = offset - token
            positions[:, token:offset] = np.arange(position, position + text)
            position += text
            positions[:, offset : offset + count] = block + position
            # the reference continues after the longer side even if a video's time went further
            position += longest
            token = offset + count
    positions[:, token:] = np.arange(position, position + num_tokens - token)
    return positions, position - token


def _blocks(media: Sequence[MediaSpan], vision: VisionSpec) -> list[tuple[int, Positions, int]]:
    """(offset, positions from 0 [3, n], longer side) of every run of placeholders, in order."""
    found: list[tuple[int, Positions, int]] = []
    for span in media:
        t, h, w = span.grid_thw
        rows, columns = h // vision.merge, w // vision.merge
        runs = span.token_runs
        interval = np.float32(1)
        if span.kind is MediaKind.VIDEO and vision.tower is Tower.QWEN2_5:
            # float32, as the reference multiplies: a double would truncate differently at times
            interval = np.float32(vision.tokens_per_second) * np.float32(span.second_per_grid_s)
        if t % len(runs):
            raise ValueError(f"medium {span.key[:12]}: {t} frames in {len(runs)} runs")
        block = _grid(t // len(runs), rows, columns, interval)
        for offset, count in runs:
            if count != block.shape[1]:
                raise ValueError(
                    f"medium {span.key[:12]}: {count} placeholders at {offset} for a grid of "
                    f"{block.shape[1]}"
                )
            found.append((offset, block, max(rows, columns)))
    return sorted(found, key=lambda item: item[0])


def _grid(times: int, rows: int, columns: int, interval: np.float32) -> Positions:
    """(time, row, column) of each cell, time first: [3, times · rows · columns]."""
    cells = np.indices((times, rows, columns)).reshape(3, -1).astype(np.int64)
    cells[0] = (cells[0].astype(np.float32) * interval).astype(np.int64)
    return cells
