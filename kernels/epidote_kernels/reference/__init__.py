"""This package is about each op's torch twin: the oracle of the tests, and what a CPU runs."""

from epidote_kernels.reference.attention_scores import attention_column_sums, pool_scores
from epidote_kernels.reference.blocks import copy_blocks, gather_blocks, scatter_blocks
from epidote_kernels.reference.fused_moe import fused_moe, moe_route
from epidote_kernels.reference.norms import add_rms_norm, rms_norm
from epidote_kernels.reference.packed_blocks import pack_blocks, unpack_blocks
from epidote_kernels.reference.paged_decode_attention import paged_decode_attention
from epidote_kernels.reference.paged_prefill_attention import paged_prefill_attention
from epidote_kernels.reference.quantized_linear import quantize_weight, quantized_linear
from epidote_kernels.reference.replica_slots import replica_slots
from epidote_kernels.reference.rope_kv_write import rope_kv_write
from epidote_kernels.reference.sampling import apply_penalties, sample_tokens
from epidote_kernels.reference.silu_mul import silu_mul
from epidote_kernels.reference.vision_attention import vision_attention

__all__ = [
    "add_rms_norm",
    "apply_penalties",
    "attention_column_sums",
    "copy_blocks",
    "fused_moe",
    "gather_blocks",
    "moe_route",
    "pack_blocks",
    "paged_decode_attention",
    "paged_prefill_attention",
    "pool_scores",
    "quantize_weight",
    "quantized_linear",
    "replica_slots",
    "rms_norm",
    "rope_kv_write",
    "sample_tokens",
    "scatter_blocks",
    "silu_mul",
    "unpack_blocks",
    "vision_attention",
]
