"""This file is about one layer's attention over the paged KV cache."""

from dataclasses import dataclass

import torch
from torch import Tensor

from epidote_engine.layers.linear import Linear
from epidote_engine.layers.norm import HeadsNorm, QkNorm
from epidote_engine.models.step_inputs import StepInputs
from epidote_kernels import ops
from epidote_kernels.ops.dispatch import by_kernel


@dataclass(slots=True, eq=False)
class Attention:
    """Weights of one layer: `qkv` is fused; `qk_norm` is Qwen3's.

    k_scale, v_scale  [K] fp32: what a code of a one-byte cache counts for (`kv_scales`)
    """

    qkv: Linear
    out: Linear
    qk_norm: HeadsNorm | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def write_and_attend(
        self, x: Tensor, rope: tuple[Tensor, Tensor], layer: Tensor, inputs: StepInputs
    ) -> Tensor:
        """Normed hidden states [T, hidden] → heads' outputs [T, num_heads·head_dim], before `out`.

        `layer` [2, NB, BS, K, D] is this layer's KV. It is mutated: the step's keys and values are
        filed first, then read.
        """
        heads, kv_heads, dim = self.num_heads, self.num_kv_heads, self.head_dim
        qkv = self.qkv(x).view(x.shape[0], heads + 2 * kv_heads, dim)
        norm: QkNorm = {}
        if self.qk_norm is not None and by_kernel(qkv):
            norm = self.qk_norm.in_rotation()
        elif self.qk_norm is not None:
            self.qk_norm.in_place(qkv[:, : heads + kv_heads])
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], dim=1)
        q = ops.rope_kv_write(
            q, k, v, *rope, layer[0], layer[1], inputs.slots,
            k_scale=self.k_scale, v_scale=self.v_scale, **norm,
        )  # fmt: skip
        return self._attend(q, layer, inputs).view(x.shape[0], heads * dim)

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)

    def _attend(self, q: Tensor, layer: Tensor, inputs: StepInputs) -> Tensor:
        k_cache, v_cache, scale = layer[0], layer[1], self.scale
        split = inputs.num_decodes
        parts = []
        if split:
            parts.append(
                ops.paged_decode_attention(
                    q[:split], k_cache, v_cache,
                    inputs.decode_tables, inputs.decode_lens,
                    scale=scale, k_scale=self.k_scale, v_scale=self.v_scale,
                )
            )  # fmt: skip
        if inputs.fresh_prompts is not None:
            parts.append(inputs.fresh_prompts.attend(q[split:], layer, scale))
        elif inputs.max_q_len:
            parts.append(
                ops.paged_prefill_attention(
                    q[split:], k_cache, v_cache, inputs.prefill_tables,
                    inputs.cu_q_lens, inputs.prefill_lens,
                    scale=scale, max_q_len=inputs.max_q_len,
                    k_scale=self.k_scale, v_scale=self.v_scale,
                )
            )  # fmt: skip
        return parts[0] if len(parts) == 1 else torch.cat(parts)
