"""This file is about turning bytes into normalised patches, on the device.

The result equals the Hugging Face image processor's `pixel_values` bit for bit: there are only 256
byte values, so each channel's results are computed once, by the processor's own arithmetic, and
looked up. Moving bytes first and looking up last also moves a quarter of the memory.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epidote_core.generation import MediaPixels
from epidote_engine.vision.spec import Normalisation, VisionSpec


def byte_table(normalisation: Normalisation) -> Tensor:
    """What each byte of each channel becomes: float32 [3 · 256], channel by channel."""
    scaled = (np.arange(256, dtype=np.float64) * normalisation.rescale).astype(np.float32)
    mean = np.asarray(normalisation.mean, dtype=np.float32)[:, None]
    std = np.asarray(normalisation.std, dtype=np.float32)[:, None]
    return torch.from_numpy(((scaled - mean) / std).astype(np.float32).ravel())


class Patchifier:
    """Packs many media into one matrix of patches; keeps the lookup table on its device."""

    def __init__(self, spec: VisionSpec, *, dtype: torch.dtype, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        self._table = byte_table(spec.normalisation).to(device=device, dtype=dtype)
        self._channel = (torch.arange(3, dtype=torch.int32, device=device) * 256).view(3, 1, 1, 1)

    def __call__(self, media: Sequence[MediaPixels]) -> Tensor:
        """All patches of all media: [sum of t·h·w, channels · frames · patch · patch].

        A patch's values are ordered (channel, frame, row, column). A medium whose number of frames
        is no multiple of `temporal_patch` repeats its last one (an image: its only one).

        Raises:
            ValueError: a medium's size, bytes and grid disagree.
        """
        for medium in media:
            self._check(medium)
        staging = torch.empty(
            sum(len(medium.data) for medium in media),
            dtype=torch.uint8,
            pin_memory=self._device.type == "cuda",
        )
        host, start = staging.numpy(), 0
        for medium in media:
            end = start + len(medium.data)
            host[start:end] = np.frombuffer(medium.data, dtype=np.uint8)
            start = end
        on_device = staging.to(self._device, non_blocking=True)
        parts = torch.split(on_device, [len(medium.data) for medium in media])
        bytes_ = torch.cat([self._cut(m, part) for m, part in zip(media, parts, strict=True)])
        index = bytes_.to(torch.int32) + self._channel
        values = self._table.index_select(0, index.view(-1))
        return values.view(-1, self._spec.patch_values)

    def _cut(self, medium: MediaPixels, data: Tensor) -> Tensor:
        """uint8 patches [t·h·w, channels, frames, patch, patch] of one medium."""
        spec = self._spec
        t, h, w = medium.grid_thw
        frames = data.view(medium.num_frames, medium.height, medium.width, 3)
        if missing := t * spec.temporal_patch - medium.num_frames:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        merge, patch = spec.merge, spec.patch
        blocks = frames.view(
            t, spec.temporal_patch, h // merge, merge, patch, w // merge, merge, patch, 3
        )
        # (t, frame, group row, row in group, y, group column, column in group, x, channel)
        ordered = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return ordered.reshape(t * h * w, 3, spec.temporal_patch, patch, patch)

    def _check(self, medium: MediaPixels) -> None:
        t, h, w = medium.grid_thw
        spec = self._spec
        right = (
            (medium.height, medium.width) == (h * spec.patch, w * spec.patch)
            and h % spec.merge == w % spec.merge == 0
            and t == -(-medium.num_frames // spec.temporal_patch)
            and len(medium.data) == medium.num_frames * medium.height * medium.width * 3
            and medium.num_tokens == t * h * w // spec.merge**2
            and medium.num_tokens > 0
        )
        if not right:
            raise ValueError(
                f"medium {medium.key[:12]}: {medium.num_frames}×{medium.height}×{medium.width} "
                f"pixels ({len(medium.data)} bytes) do not make grid {medium.grid_thw} of "
                f"{spec.patch}-pixel patches with {medium.num_tokens} tokens"
            )
