"""This package is about the ops a model calls: each checks its arguments, then picks who computes.

A CUDA tensor goes to the Triton kernel (`epidote_kernels.<op>`), any other to the torch twin
(`epidote_kernels.reference`); `dispatch` says how `EPIDOTE_KERNELS` overrides that.

Letters in shapes: T tokens of the step, flattened over sequences; S sequences; H query heads;
K key/value heads; D head dimension; NB blocks of BS slots; MB blocks at most per sequence.
"fp" is fp32, bf16 or fp16. No op waits for the device when a kernel computes; twins read lengths
on the host. Nothing here is differentiable.
"""

from epidote_kernels.ops.attention_scores import attention_column_sums, pool_scores
from epidote_kernels.ops.blocks import copy_blocks, gather_blocks, scatter_blocks
from epidote_kernels.ops.fused_moe import fused_moe, moe_route
from epidote_kernels.ops.norms import add_rms_norm, rms_norm
from epidote_kernels.ops.packed_blocks import pack_blocks, unpack_blocks
from epidote_kernels.ops.paged_attention import paged_decode_attention, paged_prefill_attention
from epidote_kernels.ops.quantized_linear import quantize_weight, quantized_linear
from epidote_kernels.ops.replica_slots import replica_slots
from epidote_kernels.ops.rope_kv_write import rope_kv_write
from epidote_kernels.ops.sampling import apply_penalties, sample_tokens
from epidote_kernels.ops.silu_mul import silu_mul
from epidote_kernels.ops.vision_attention import vision_attention
from epidote_kernels.rope_tables import mrope_cos_sin, rope_cos_sin, rope_table

__all__ = [
    "add_rms_norm",
    "apply_penalties",
    "attention_column_sums",
    "copy_blocks",
    "fused_moe",
    "gather_blocks",
    "moe_route",
    "mrope_cos_sin",
    "pack_blocks",
    "paged_decode_attention",
    "paged_prefill_attention",
    "pool_scores",
    "quantize_weight",
    "quantized_linear",
    "replica_slots",
    "rms_norm",
    "rope_cos_sin",
    "rope_kv_write",
    "rope_table",
    "sample_tokens",
    "scatter_blocks",
    "silu_mul",
    "unpack_blocks",
    "vision_attention",
]
