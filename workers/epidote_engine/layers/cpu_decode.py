"""This file is about a decode step on a CPU: what `epidote_kernels` does in general ops, with
everything that is the same for all layers computed once.

For 16 sequences a layer's attention takes microseconds where each torch op costs one or more, and
the general twins have to prepare the block tables anew in every layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from epidote_engine.models.step_inputs import StepInputs


@dataclass(slots=True, eq=False)
class CpuDecode:
    """One step's decodes, none of them padding.

    cos, sin  [T, 1, D]  factors of x and of x with its halves exchanged (hence signs in `sin`)
    blocks    [2·T·MB]  int64: keys' blocks, then values' blocks, of a layer seen as [2·NB, …]
    slots     [T]
    bias      [T, 1, 1, L]  -inf past a sequence's end; None: all are equally long
    gathered  [2·T·MB, BS, K, D]  memory for the blocks of one layer at a time
    """

    cos: Tensor
    sin: Tensor
    blocks: Tensor
    slots: Tensor
    length: int
    bias: Tensor | None
    gathered: Tensor

    @classmethod
    def of(
        cls, inputs: StepInputs, rope: tuple[Tensor, Tensor], kv: Tensor, dtype: torch.dtype
    ) -> "CpuDecode | None":
        """None: this step has prefill or padding, or is no CPU's."""
        if inputs.max_q_len or kv.device.type != "cpu" or not inputs.num_decodes:
            return None
        lens = inputs.decode_lens.numpy()
        longest, shortest = int(lens.max()), int(lens.min())
        if shortest == 0:
            return None
        num_blocks, size, kv_heads, dim = kv.shape[2:]
        width = -(-longest // size)
        # entries past a sequence's end are stale: any block will do, its scores are masked
        table = inputs.decode_tables[:, :width].reshape(-1).long()
        bias = None
        if shortest != longest:
            past = torch.arange(longest).unsqueeze(0) >= inputs.decode_lens.unsqueeze(1)
            bias = torch.zeros(past.shape, dtype=dtype).masked_fill_(past, -torch.inf)
            bias = bias.view(-1, 1, 1, longest)
        cos, sin = (half.to(dtype).unsqueeze(1) for half in rope)
        return cls(
            cos=torch.cat((cos, cos), -1),
            sin=torch.cat((-sin, sin), -1),
            blocks=torch.cat((table, table + num_blocks)),
            slots=inputs.slots,
            length=longest,
            bias=bias,
            gathered=torch.empty(2 * len(table), size * kv_heads * dim, dtype=dtype),
        )

    def attend(self, qkv: Tensor, heads: int, layer: Tensor, scale: float) -> Tensor:
        """File the step's keys and values, then attend.

        qkv      [T, H + 2·K, D]  normed, not rotated
        layer    [2, NB, BS, K, D]  of this layer; mutated
        returns  [T, H·D]
        """
        rows, _, dim = qkv.shape
        kv_heads = layer.shape[3]
        turning = qkv.narrow(1, 0, heads + kv_heads)
        values = qkv.narrow(1, heads + kv_heads, kv_heads)
        turned = torch.addcmul(turning * self.cos, turning.roll(dim // 2, -1), self.sin)
        cells = layer.view(2, -1, kv_heads, dim)
        cells[0].index_copy_(0, self.slots, turned.narrow(1, heads, kv_heads))
        cells[1].index_copy_(0, self.slots, values)
        torch.index_select(layer.view(2 * layer.shape[1], -1), 0, self.blocks, out=self.gathered)
        both = self.gathered.view(2, rows, -1, kv_heads, dim)[:, :, : self.length].transpose(2, 3)
        # heads that share a KV head stand where a longer query would
        out = torch.nn.functional.scaled_dot_product_attention(
            turned.narrow(1, 0, heads).reshape(rows, kv_heads, heads // kv_heads, dim),
            both[0], both[1],
            attn_mask=self.bias, scale=scale,
        )  # fmt: skip
        return out.reshape(rows, heads * dim)
