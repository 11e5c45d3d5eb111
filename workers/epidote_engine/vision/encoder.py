"""This file is about the encode stage's model: a vision tower with its weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from epidote_core.generation import MediaPixels
from epidote_engine.vision.patches import Patchifier
from epidote_engine.vision.qwen2_5 import encode_qwen2_5
from epidote_engine.vision.qwen3 import encode_qwen3
from epidote_engine.vision.spec import Tower
from epidote_engine.vision.tower_weights import TowerWeights

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec

_TOWERS = {Tower.QWEN2_5: encode_qwen2_5, Tower.QWEN3: encode_qwen3}


class VisionEncoder:
    """Encodes pictures and videos, many at once.

    Weights are those of `weights.vision_weights`: plain names, all on `device` in `dtype`.
    """

    def __init__(
        self,
        spec: "ModelSpec",
        weights: Mapping[str, Tensor],
        dtype: torch.dtype,
        device: torch.device | str,
        *,
        compiles: bool = False,
    ) -> None:
        """`compiles`: what lies between a block's products goes through `torch.compile`, now."""
        if spec.vision is None:
            raise ValueError(f"{spec.architecture} has no vision tower")
        self.spec = spec.vision
        self.row_width = self.spec.row_width
        self._weights = TowerWeights(weights)
        self._patchify = Patchifier(self.spec, dtype=dtype, device=torch.device(device))
        self._tower = _TOWERS[self.spec.tower]
        if compiles:
            self._weights.chains.compile(
                heads=self.spec.num_heads,
                head_dim=self.spec.head_dim,
                weight=self._weights["blocks.0.norm2.weight"],
                bias=self._weights.get("blocks.0.norm2.bias"),
                eps=self.spec.norm_eps,
            )

    @property
    def is_compiled(self) -> bool:
        """Whether compiled chains are in use."""
        return self._weights.chains.is_compiled

    @torch.inference_mode()
    def encode(self, media: Sequence[MediaPixels]) -> list[Tensor]:
        """One [num_tokens, row_width] tensor for each medium, in order, on the device.

        The first `hidden` columns are the embedding that replaces a placeholder's, then come the
        deep-stack levels, `hidden` columns each. A medium's rows do not depend on its neighbours
        in the batch (up to rounding). All media form one packed sequence: memory grows with the
        sum of their patches, so the caller bounds the batch.

        Raises:
            ValueError: a medium's size, bytes and grid disagree.
        """
        if not media:
            return []
        grids = [medium.grid_thw for medium in media]
        rows = self._tower(self._patchify(media), grids, self._weights, self.spec)
        return list(torch.split(rows, [medium.num_tokens for medium in media]))
