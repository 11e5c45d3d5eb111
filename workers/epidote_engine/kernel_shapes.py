"""This file is about telling the kernels what a model will ask of them, so that they are compiled
when the engine starts and no request waits for it."""

from typing import TYPE_CHECKING

import torch

from epidote_engine.layers.quantized_linear import KINDS
from epidote_engine.models.decoder import DecoderConfig
from epidote_kernels.warm_up import ModelShapes

if TYPE_CHECKING:
    from epidote_engine.vision.spec import VisionSpec


def kernel_shapes(
    decoder: DecoderConfig,
    kv: torch.Tensor,
    dtype: torch.dtype,
    vision: "VisionSpec | None" = None,
    quantization: str | None = None,
) -> ModelShapes:
    """What the engine launches with: both halves of the model, since any role may come.

    decoder  of this rank, whose heads and channels may be a part of the model's
    kv       the pool [layers, 2, NB, BS, K, D]: its number type and its block size
    quantization  "int8" | "fp8": weights in 8 bits
    """
    experts = decoder.experts
    is_dense = experts is None or len(experts.layers) < decoder.num_layers
    return ModelShapes(
        num_heads=decoder.num_heads,
        num_kv_heads=decoder.num_kv_heads,
        head_dim=decoder.head_dim,
        hidden=decoder.hidden,
        inner=decoder.intermediate if is_dense else 0,
        block_size=kv.shape[3],
        dtype=dtype,
        kv_dtype=kv.dtype,
        vision_heads=vision.num_heads if vision else 0,
        vision_dim=vision.head_dim if vision else 0,
        num_experts=experts.num_experts if experts else 0,
        top_k=experts.per_token if experts else 0,
        num_slots=decoder.expert_slots.num_own if decoder.expert_slots else 0,
        expert_codes=KINDS[quantization] if quantization else None,
        expert_inner=experts.intermediate if experts else 0,
        renormalises=experts is not None and experts.renormalises,
        qk_norm=decoder.qk_norm,
    )
