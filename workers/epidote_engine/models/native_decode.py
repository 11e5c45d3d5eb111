"""This file is about a decode step of a small model in one call of `native/decode_step.c`.

It reads and writes the paged pool itself and follows the batch's arrays where they lie, so that a
step costs its arithmetic: with a few million parameters a torch call takes longer than what it
computes.
"""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Mlp
from epidote_engine.models.decoder import DecoderConfig, DecoderLM, Layer
from epidote_engine.native.build import library
from epidote_engine.rows import BatchRows, Ints

_MOST_BYTES = 64 << 20  # of weights: for larger models oneDNN's products are worth their calls


class _Layer(Structure):
    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            "qkv", "qkv_bias", "heads_norm", "out", "out_bias", "gate_up", "down", "keys", "values",
        )
    )  # fmt: skip


class _Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in (
            "layers", "hidden", "heads", "kv_heads", "dim", "intermediate", "vocab", "block_size",
        )),
        *((name, c_float) for name in ("norm_floor", "heads_floor", "scale")),
        *((name, c_void_p) for name in ("embedding", "head")),
        ("layer", POINTER(_Layer)),
    )  # fmt: skip


class _Batch(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("last_token", "num_tokens", "delta", "table")),
        *((name, c_int64) for name in ("table_width", "count")),
        *((name, c_void_p) for name in ("rows", "cos", "sin", "scratch", "logits")),
    )


def is_small(config: DecoderConfig) -> bool:
    """Whether a step of such a model is compiled, on a CPU and in float32."""
    attention = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim
    outputs = config.num_layers * (attention + 3 * config.intermediate) + config.vocab
    return 4 * config.hidden * outputs <= _MOST_BYTES


class NativeDecode:
    """Decodes running sequences; `rows` says what they are, `kv` is the paged pool."""

    @classmethod
    def of(cls, model: DecoderLM, kv: Tensor, rows: BatchRows) -> "NativeDecode | None":
        """None where it does not apply: another type or layer, a large model, no compiler."""
        if not all(isinstance(layer.mlp, Mlp) for layer in model.layers):
            return None  # experts
        config = model.config
        projections = [model.head, *(p for layer in model.layers for p in _projections(layer))]
        if (
            {model.dtype, kv.dtype} != {torch.float32}
            or not is_small(config)
            or any(type(projection) is not Linear for projection in projections)
        ):
            return None
        compiled = library()
        if compiled is None or config.head_dim % compiled.lane_width():
            return None
        return cls(compiled, model, kv, rows)

    def __init__(
        self, compiled: ctypes.CDLL, model: DecoderLM, kv: Tensor, rows: BatchRows
    ) -> None:
        """`compiled` is `library()`; see `of`."""
        self._compiled, self._model = compiled, model
        compiled.scratch_floats.restype = c_int64
        compiled.scratch_floats.argtypes = (POINTER(_Model), c_int64, c_int64)
        compiled.decode_step.argtypes = (POINTER(_Model), POINTER(_Batch))
        compiled.decode_step.restype = None
        self._tile, self._lanes = compiled.tile_width(), compiled.lane_width()
        self._kept: list[Any] = [kv, rows]  # what C reads lives as long as this
        config = model.config
        layers = (_Layer * config.num_layers)(
            *(self._layer(layer, pool) for layer, pool in zip(model.layers, kv, strict=True))
        )
        self._c_model = _Model(
            layers=config.num_layers,
            hidden=config.hidden,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            dim=config.head_dim,
            intermediate=config.intermediate,
            vocab=config.vocab,
            block_size=kv.shape[3],
            norm_floor=config.hidden * config.rms_eps,
            heads_floor=config.head_dim * config.rms_eps,
            scale=config.head_dim**-0.5,
            embedding=self._address(model.embedding),
            head=self._address(self._panels(model.head.plain()[0])),
            layer=layers,
        )
        self._batch = _Batch(
            last_token=rows.last_token.ctypes.data,
            num_tokens=rows.num_tokens.ctypes.data,
            delta=rows.delta.ctypes.data,
            table=rows.table.ctypes.data,
            table_width=rows.table.shape[1],
        )
        self._rows = rows
        self._turns = (torch.empty(0, config.head_dim // 2),) * 2
        self._scratch = torch.empty(0)

    def logits(self, rows: Ints) -> Tensor:
        """Logits [N, vocab] of the next token of each of `rows`; files the last token's KV."""
        state, batch, count = self._rows, self._batch, len(rows)
        longest = int(state.num_tokens[rows].max())
        self._make_turns(longest + int(state.delta[rows].max()))
        floats = self._compiled.scratch_floats(self._c_model, count, longest)
        if floats > len(self._scratch):
            self._scratch = torch.empty(2 * floats)
            batch.scratch = self._scratch.data_ptr()
        vocab = self._model.config.vocab
        logits = torch.empty(count, -(-vocab // self._tile) * self._tile)
        batch.count, batch.rows, batch.logits = count, rows.ctypes.data, logits.data_ptr()
        self._compiled.decode_step(self._c_model, batch)
        return logits[:, :vocab]

    def _make_turns(self, positions: int) -> None:
        """Cosines and sines of so many positions; grown as needed: contexts may be very long."""
        if positions > len(self._turns[0]):
            most = self._model.config.max_positions
            cos, sin = self._model.rope(torch.arange(max(positions, min(2 * positions, most))))
            self._turns = (cos.contiguous(), sin.contiguous())
            self._batch.cos, self._batch.sin = (half.data_ptr() for half in self._turns)

    def _layer(self, layer: Layer, pool: Tensor) -> _Layer:
        """`pool` [2, NB, BS, K, D]: this layer's keys and values."""
        (qkv, qkv_bias), (out, out_bias), (gate_up, _), (down, _) = (
            projection.plain() for projection in _projections(layer)
        )
        norm = layer.attention.qk_norm
        return _Layer(
            qkv=self._address(self._panels(qkv)),
            qkv_bias=self._bias(qkv_bias),
            heads_norm=None if norm is None else self._address(norm.folded()),
            out=self._address(self._panels(out)),
            out_bias=self._bias(out_bias),
            gate_up=self._address(self._panels(*gate_up.chunk(2))),
            down=self._address(self._panels(down)),
            keys=pool[0].data_ptr(),
            values=pool[1].data_ptr(),
        )

    def _panels(self, *weights: Tensor) -> Tensor:
        """Weights [out, in] of equal shapes as [panels, in, tile]; each has its share of a tile."""
        width = self._tile // len(weights)
        parts = [_wide(weight, width).view(-1, width, weight.shape[1]) for weight in weights]
        return torch.cat(parts, 1).transpose(1, 2)

    def _bias(self, bias: Tensor | None) -> int | None:
        return None if bias is None else self._address(_wide(bias, self._tile))

    def _address(self, tensor: Tensor) -> int:
        """Where its elements lie from here on, without gaps."""
        self._kept.append(tensor.contiguous())
        address: int = self._kept[-1].data_ptr()
        return address


def _projections(layer: Layer) -> tuple[Linear, ...]:
    assert isinstance(layer.mlp, Mlp), "`of` declines experts"
    return layer.attention.qkv, layer.attention.out, layer.mlp.gate_up, layer.mlp.down


def _wide(weight: Tensor, multiple: int) -> Tensor:
    """`weight` with zeros behind, up to a multiple of so many rows."""
    missing = -len(weight) % multiple
    return torch.cat((weight, weight.new_zeros(missing, *weight.shape[1:])))
