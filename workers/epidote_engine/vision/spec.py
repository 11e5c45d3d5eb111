"""This file is about the shape of a vision tower, as config.json gives it; no torch."""

from dataclasses import dataclass
from enum import StrEnum


class Tower(StrEnum):
    """The vision towers that `vision.encoder` knows."""

    QWEN2_5 = "qwen2_5_vl"  # windows, RMSNorm, SwiGLU
    QWEN3 = "qwen3_vl"  # learned positions, LayerNorm, GELU, deep-stack


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What turns a byte into a network input: (byte · rescale - mean) / std, by RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """A vision tower. Sizes are in pixels (`patch`, `window`), patches (`merge`), or features.

    `merge`² neighbouring patches become one row for the language model. `deepstack_layers` are
    the layers after which a further row is taken off for an early layer of the language model.
    """

    tower: Tower
    num_layers: int
    hidden: int
    num_heads: int
    intermediate: int
    out_hidden: int  # the language model's hidden size
    activation: str
    patch: int
    temporal_patch: int
    merge: int
    channels: int = 3
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    normalisation: Normalisation
    # Qwen2.5-VL
    window: int = 0
    full_attention_layers: tuple[int, ...] = ()
    tokens_per_second: float = 1.0
    # Qwen3-VL
    num_positions: int = 0
    deepstack_layers: tuple[int, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.hidden // self.num_heads

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: channels · frames · height · width."""
        return self.channels * self.temporal_patch * self.patch * self.patch

    @property
    def grid_pixels(self) -> int:
        """Height and width of every picture are multiples of this."""
        return self.patch * self.merge

    @property
    def row_width(self) -> int:
        """Width of one embedding row: merged features, then each deep-stack level's."""
        return self.out_hidden * (1 + len(self.deepstack_layers))
