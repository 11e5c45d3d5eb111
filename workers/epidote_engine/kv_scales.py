"""This file is about the scales of a KV cache of one-byte codes: what a code counts for.

A head's scale takes the largest number that the head made of a sample, and some more, to the
largest code (`epidote_kernels.kv_codes`). The sample is the same random tokens for everybody, so
that workers of one model agree about what they copy from each other, up to the rounding of their
own arithmetic. Checkpoints' own scales are not read.
"""

import torch

from epidote_engine.layers.attention import Attention
from epidote_engine.models.decoder import DecoderLM
from epidote_engine.models.step_inputs import StepInputs
from epidote_kernels.reference.kv_codes import head_scales

SAMPLE_TOKENS = 256
# Room above the sample's largest number; what exceeds it is clamped. Steps of int8 are wider by as
# much, those of e4m3 are relative to the number. Chosen by that, not measured on a real model.
MARGIN = {torch.int8: 1.5, torch.float8_e4m3fn: 4.0}


@torch.inference_mode()
def measure_scales(model: DecoderLM, kv: torch.Tensor) -> None:
    """Run the sample through `model` in its own type and set its attentions' scales by it.

    kv  the pool [layers, 2, NB, BS, K, D] of int8 or float8_e4m3fn; neither read nor written
    """
    layers, _, _, block_size, kv_heads, dim = kv.shape
    count = min(SAMPLE_TOKENS, model.config.max_positions)
    num_blocks = -(-count // block_size)
    on = model.device
    shape = (layers, 2, num_blocks, block_size, kv_heads, dim)
    seen = torch.zeros(shape, dtype=model.dtype, device=on)
    tokens = torch.randint(model.config.vocab, (count,), generator=torch.Generator().manual_seed(0))
    table = torch.arange(num_blocks, dtype=torch.int32, device=on).unsqueeze(0)
    attentions: list[Attention] = [layer.attention for layer in model.layers]
    for attention in attentions:  # from an earlier measurement
        attention.k_scale = attention.v_scale = None
    places = torch.arange(count, device=on)
    inputs = StepInputs.chunk(tokens.to(on), places, places, table)
    counts, model.expert_tokens = model.expert_tokens, None  # the sample is nobody's request
    model.forward(inputs, seen)
    model.expert_tokens = counts
    for attention, made in zip(attentions, seen, strict=True):
        keys, values = (part.flatten(0, 1)[:count] for part in made)
        attention.k_scale = head_scales(keys, kv.dtype) * MARGIN[kv.dtype]
        attention.v_scale = head_scales(values, kv.dtype) * MARGIN[kv.dtype]
