"""This file is about what a model directory holds: architecture, sizes, special tokens.

No torch at import, since prompt processing reads it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epidote_engine.image_settings import ImageSettings, load_image_settings
from epidote_engine.model_files import InvalidModel, model_directory, read_json
from epidote_engine.text_config import Architecture, text_section, text_values
from epidote_engine.vision.spec import Tower, VisionSpec
from epidote_engine.vision_config import vision_spec

if TYPE_CHECKING:
    from epidote_engine.models.decoder import DecoderConfig

_TOWERS = {
    Architecture.QWEN2_5_VL: Tower.QWEN2_5,
    Architecture.QWEN3_VL: Tower.QWEN3,
    Architecture.QWEN3_VL_MOE: Tower.QWEN3,
}
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class MediaTokens:
    """Token ids around media: placeholders for images and videos, and their brackets."""

    image: int
    video: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model as its directory describes it; `vision`, `images`, `media_tokens` for VLMs only."""

    name: str  # as the user named it
    path: Path
    architecture: Architecture
    dtype: str  # of the checkpoint: "float32" | "bfloat16" | "float16"
    text: Mapping[str, Any] = field(repr=False)  # text_config.text_values
    eos_token_ids: tuple[int, ...]
    vision: VisionSpec | None = None
    images: ImageSettings | None = None
    media_tokens: MediaTokens | None = None

    @property
    def vocab_size(self) -> int:
        return int(self.text["vocab_size"])

    @property
    def max_positions(self) -> int:
        """The longest sequence that the model was made for, in tokens."""
        return int(self.text["max_position_embeddings"])

    @property
    def media_row_width(self) -> int:
        """Width of one row of an encoded medium; 0 for a model without vision."""
        return self.vision.row_width if self.vision else 0

    @cached_property
    def decoder(self) -> "DecoderConfig":
        """The language model's configuration; imports torch."""
        from epidote_engine.decoder_values import decoder_config

        return decoder_config(self)


def load_model_spec(model: str) -> ModelSpec:
    """Read the model's config.json and its neighbours (no weights).

    `model` is an alias, a directory, or a hub id: see `model_files`.

    Raises:
        InvalidModel: not found, an unknown architecture, or fields that this engine can't honour.
    """
    directory = model_directory(model)
    config = read_json(directory, "config.json")
    architecture = _architecture(model, config)
    text = text_values(config, architecture)
    common: dict[str, Any] = {
        "name": model,
        "path": directory,
        "architecture": architecture,
        "dtype": _dtype(config),
        "text": text,
        "eos_token_ids": _eos_token_ids(directory, config),
    }
    if not architecture.has_vision:
        return ModelSpec(**common)
    tower = _TOWERS[architecture]
    section = config.get("vision_config")
    section = section if isinstance(section, dict) else {}
    images = load_image_settings(directory, section, tower)
    vision = vision_spec(section, tower, images.normalisation)
    if vision.out_hidden != int(text["hidden_size"]):
        raise InvalidModel(
            f"model {model!r}: the vision tower gives rows of {vision.out_hidden}, the language "
            f"model wants {text['hidden_size']}"
        )
    return ModelSpec(**common, vision=vision, images=images, media_tokens=_media_tokens(config))


def _architecture(model: str, config: Mapping[str, Any]) -> Architecture:
    named = config.get("architectures") or []
    for name in named:
        if name in set(Architecture):
            return Architecture(name)
    raise InvalidModel(
        f"model {model!r}: architecture {', '.join(map(str, named)) or 'not named'} is not "
        f"supported; known: {', '.join(Architecture)}"
    )


def _dtype(config: Mapping[str, Any]) -> str:
    section = text_section(config)
    for name in ("dtype", "torch_dtype"):
        for place in (config, section):
            if value := place.get(name):
                value = str(value).removeprefix("torch.")
                return value if value in _DTYPES else "float32"
    return "float32"


def _eos_token_ids(directory: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Where generation stops: generation_config.json's word, else config.json's."""
    generation = read_json(directory, "generation_config.json")
    for place in (generation, config, text_section(config)):
        found = place.get("eos_token_id")
        if found is not None:
            return tuple(found) if isinstance(found, list) else (int(found),)
    return ()


def _media_tokens(config: Mapping[str, Any]) -> MediaTokens:
    # the defaults of transformers' Qwen2_5_VLConfig and Qwen3VLConfig
    return MediaTokens(
        image=int(config.get("image_token_id", 151655)),
        video=int(config.get("video_token_id", 151656)),
        start=int(config.get("vision_start_token_id", 151652)),
        end=int(config.get("vision_end_token_id", 151653)),
    )
