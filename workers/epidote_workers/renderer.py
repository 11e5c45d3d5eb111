"""This file is about the gateway's prompt renderer, with the length that the workers were given."""

from dataclasses import replace
from typing import Any

from epidote_engine.config import load_model_spec
from epidote_engine.processing import PromptProcessor


def renderer_of(
    model: str, max_model_len: int | None, *, takes_media: bool = True
) -> PromptProcessor:
    """The model's prompt processor; sequences no longer than `max_model_len`, in tokens.

    `takes_media` False: requests with pictures are refused, as by a model without eyes.

    Raises:
        InvalidModel: not found or not supported.
    """
    spec = load_model_spec(model)
    longest = min(spec.max_positions, max_model_len or spec.max_positions)
    text: dict[str, Any] = {**spec.text, "max_position_embeddings": longest}
    vision = spec.vision if takes_media else None
    return PromptProcessor(replace(spec, text=text, vision=vision))
