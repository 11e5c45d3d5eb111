"""This file is about how much of a device's memory is spoken for before the KV pool takes the rest.

The pool is made first, so that peers can map it for the life of the engine; what comes later is
counted beforehand.
"""

from math import prod
from typing import TYPE_CHECKING

import torch

from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.settings import EngineConfig
from epidote_engine.tensor_shapes import language_shapes, vision_shapes

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec

_KERNELS_BYTES = 1 << 30  # kernels, cuBLAS workspaces, graphs: a guess until it is measured


def reserved_bytes(
    spec: "ModelSpec",
    config: EngineConfig,
    decoder: DecoderConfig,
    dtype: torch.dtype,
    num_ranks: int = 1,
) -> int:
    """Bytes on the device for weights of every role, the media pool and a full step's activations.

    `decoder` is the rank's own configuration. Weights of every role, since a switch may bring them.
    """
    width = dtype.itemsize
    language = sum(prod(shape) for shape in language_shapes(spec).values()) // num_ranks
    if decoder.experts is not None and (slots := decoder.expert_slots) is not None:
        redundant = slots.num_slots - decoder.experts.num_experts
        each = 3 * decoder.hidden * decoder.experts.intermediate
        language += len(decoder.experts.layers) * redundant * each // num_ranks
    vision = 0
    if spec.vision is not None:
        vision = sum(prod(shape) for shape in vision_shapes(spec.vision).values())
    media = config.num_media_rows * spec.media_row_width
    heads = (decoder.num_heads + 2 * decoder.num_kv_heads) * decoder.head_dim
    inner = 3 * decoder.intermediate
    if decoder.experts is not None:  # a row for each of a token's experts, before and after them
        inner = max(
            inner, decoder.experts.per_token * (decoder.experts.intermediate + decoder.hidden)
        )
    token = 6 * decoder.hidden + 2 * heads + inner
    step = config.max_batched_tokens * token
    # logits as they come, in fp32, edited, and the token counts of penalties
    logits = config.max_num_seqs * decoder.vocab * (width + 3 * 4 + 5)
    return (language + vision + media + step) * width + logits + _KERNELS_BYTES
