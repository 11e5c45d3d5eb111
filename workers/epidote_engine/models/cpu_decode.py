"""This file is about a decode step on a CPU: `DecoderLM.forward`'s arithmetic with fewer ops.

With a small model on a CPU an op costs more than its arithmetic: between two matrix products, which
push everything else out of the cache, a torch call on 16 rows takes 5 to 10 µs. What is the same
for all layers is computed once a step, keys and values are read from `KvMirror` where they lie
contiguous, and the paged pool is written once a step for all layers.
"""

import numpy as np
import torch
from torch import Tensor

from epidote_engine.kv_mirror import KvMirror
from epidote_engine.models.decoder import DecoderLM
from epidote_engine.rows import BatchRows, Ints

_FEWEST_HALF_ROWS = 4  # oneDNN's bf16 products: 1 row takes 1.4 times as long as 4, on Zen 5


class CpuDecode:
    """Decodes running sequences; `rows` says what they are, `kv` is the paged pool."""

    def __init__(self, model: DecoderLM, kv: Tensor, rows: BatchRows) -> None:
        self._model = model
        self._rows = rows
        self._mirror = KvMirror(kv, rows)
        layers, _, num_blocks, self._block_size, kv_heads, dim = kv.shape
        self._pool = kv.view(layers, -1, kv_heads * dim)  # one layer's keys, then its values
        self._planes = np.array([0, num_blocks * self._block_size])
        self._turns = torch.empty(0, 2, 1, dim, dtype=model.dtype)
        self._fewest = 1 if model.dtype is torch.float32 else _FEWEST_HALF_ROWS

    def logits(self, rows: Ints) -> Tensor | None:
        """Logits [N, vocab] of the next token of each of `rows`; files the last token's KV.

        None: the batch is too large for the mirror; nothing was done.
        """
        state, mirror, count = self._rows, self._mirror, len(rows)
        index = state.num_tokens[rows] - 1
        padded = max(count, self._fewest)
        longest = int(np.maximum.reduce(index)) + 1
        if not mirror.make_room(padded, longest):
            return None
        order = mirror.seat(rows, padded)
        if order is not None:
            rows, index = rows[order[0]], index[order[0]]
        mirror.follow(rows, index)
        block, offset = divmod(index, self._block_size)
        slots = state.table[rows, block] * self._block_size + offset
        tokens, positions = state.last_token[rows], index + state.delta[rows]
        if padded > count:
            more = (0, padded - count)
            tokens, positions, index = (np.pad(a, more) for a in (tokens, positions, index))
        hidden = self._forward(tokens, positions, index, slots, longest)
        logits = self._model.logits(hidden)
        if order is not None:
            return logits.index_select(0, torch.from_numpy(order[1]))
        return logits if padded == count else logits[:count]

    def _forward(
        self, tokens: Ints, positions: Ints, index: Ints, slots: Ints, longest: int
    ) -> Tensor:
        """Final hidden states [N, hidden], normed.

        tokens, positions, index  [N], in the order of the mirror's slots, padding behind
        slots                     [N without padding]  where the pool gets the new keys and values
        """
        config, mirror = self._model.config, self._mirror
        heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        count, num_new = len(tokens), 2 * len(slots)
        to_mirror = torch.from_numpy(mirror.cells(index).ravel())
        attend = _Attend(mirror, index, longest, heads, float(dim**-0.5))
        mirrored = mirror.keys_values.view(config.num_layers, -1, dim).unbind(0)
        filed = []  # every layer's new keys and values
        live = None
        if self._model.expert_tokens is not None:
            live = torch.from_numpy((np.arange(count) < len(slots)).astype(np.int64))
        cos, sin = self._rotation(positions)
        residual = torch.nn.functional.embedding(torch.from_numpy(tokens), self._model.embedding)
        for number, layer in enumerate(self._model.layers):
            attention = layer.attention
            qkv = attention.qkv(layer.input_norm(residual)).view(count, -1, dim)
            turned = qkv.narrow(1, 0, heads + kv_heads)
            plain = attention.qk_norm.scaled(turned) if attention.qk_norm is not None else turned
            torch.addcmul(plain * cos, plain.roll(dim // 2, -1), sin, out=turned)
            new = qkv.narrow(1, heads, 2 * kv_heads).reshape(-1, dim)
            mirrored[number].index_put_((to_mirror,), new)  # half of index_copy_'s time
            filed.append(new)
            residual = residual + attention.out(attend(qkv.narrow(1, 0, heads), number))
            residual = residual + layer.mlp(layer.middle_norm(residual), live)
        if filed:
            new = torch.stack(filed).view(len(filed), 2 * count, -1)[:, :num_new]
            to_pool = torch.from_numpy((slots[:, None] + self._planes).ravel())
            self._pool.index_copy_(1, to_pool, new)
        return self._model.norm(residual)

    def _rotation(self, positions: Ints) -> tuple[Tensor, ...]:
        """Factors [N, 1, D] of a head, and of the head with its halves exchanged."""
        last = int(np.maximum.reduce(positions))
        if last >= len(self._turns):  # grown as needed: the model may know very long contexts
            every = torch.arange(min(max(1024, 2 * last), self._model.config.max_positions))
            cos, sin = (half.to(self._model.dtype) for half in self._model.rope(every))
            self._turns = torch.cat((cos, cos, -sin, sin), -1).view(len(every), 2, 1, -1)
        return self._turns.index_select(0, torch.from_numpy(positions)).unbind(1)


class _Attend:
    """One token of each sequence against the mirror; a step's views are made once.

    Heads that share a KV head stand where a longer query would. In float32 two batched products
    take 0.9 of `scaled_dot_product_attention`'s time, which is made for long queries; in half types
    they take up to twice as long.
    """

    def __init__(
        self, mirror: KvMirror, index: Ints, num_tokens: int, num_heads: int, scale: float
    ) -> None:
        """`index` [N]: the place of each slot's new token."""
        count = len(index)
        bias = mirror.bias(index, num_tokens)
        seen = mirror.keys_values[:, :, :count]  # [layers, 2, N, K, tokens, D]
        kv_heads, dim = seen.shape[3], seen.shape[5]
        group = num_heads // kv_heads
        self._shape: tuple[int, ...] = (count, kv_heads, group, dim)
        self._out = (count, num_heads * dim)
        self._scale = scale
        self._as_products = seen.dtype is torch.float32
        if self._as_products:
            self._shape = (count * kv_heads, group, dim)
            seen = seen.flatten(2, 3)
            bias = bias.expand(-1, kv_heads, -1, -1).reshape(-1, 1, num_tokens)
        keys, values = seen.narrow(-2, 0, num_tokens).unbind(1)
        self._keys = (keys.transpose(-1, -2) if self._as_products else keys).unbind(0)
        self._values, self._bias = values.unbind(0), bias

    def __call__(self, queries: Tensor, layer: int) -> Tensor:
        """Queries [N, heads, D] of one layer → [N, heads·D]."""
        queries, keys, values = queries.reshape(self._shape), self._keys[layer], self._values[layer]
        if self._as_products:
            scores = torch.baddbmm(self._bias, queries, keys, alpha=self._scale)
            return torch.bmm(scores.softmax(-1), values).view(self._out)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._bias, scale=self._scale
        )
        return mixed.reshape(self._out)
