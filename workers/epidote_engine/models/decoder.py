"""This file is about the decoder-only language models: Llama, Qwen2, Qwen3, Qwen3-MoE and the text
half of Qwen2.5-VL, Qwen3-VL and Qwen3-VL-MoE are one architecture with options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from epidote_engine.expert_spec import ExpertSlots, ExpertSpec
from epidote_engine.layers.attention import Attention
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts, Mlp
from epidote_engine.layers.norm import HeadsNorm, RmsNorm
from epidote_engine.layers.rotary import inverse_frequencies
from epidote_engine.models.step_inputs import StepInputs
from epidote_kernels import ops

AfterLayer = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and options. `rope` is config.json's rope parameters (`layers.rotary`)."""

    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    rms_eps: float = 1e-6
    rope: Mapping[str, Any] = field(default_factory=lambda: {"rope_theta": 1e4})
    max_positions: int = 2048
    qk_norm: bool = False  # Qwen3
    attention_bias: bool = False  # on q, k, v: Qwen2, some Llamas
    output_bias: bool = False  # on the attention's output as well: Llama with attention_bias
    tie_embeddings: bool = False
    mrope_sections: tuple[int, int, int] | None = None
    mrope_interleaved: bool = False  # Qwen3-VL
    experts: ExpertSpec | None = None  # None: every layer is dense
    expert_slots: ExpertSlots | None = None  # of a rank that holds whole experts, but not all
    num_deepstack: int = 0  # further media rows, added after the first layers: Qwen3-VL


@dataclass(slots=True, eq=False)
class Layer:
    input_norm: RmsNorm
    attention: Attention
    middle_norm: RmsNorm
    mlp: Mlp | Experts


class DecoderLM:
    """Weights, and the pass of one step. `weights` has transformers' names without prefix.

    Fused projections are copies; drop the mapping afterwards.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Mapping[str, Tensor],
        dtype: torch.dtype,
        device: torch.device | str,
        held: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """`held`: the experts to be held, by layer with experts; None: all, in order."""
        self.config = config
        self.dtype = dtype
        self.device = torch.device(device)

        def take(name: str) -> Tensor:
            return weights[name].to(device=self.device, dtype=dtype).contiguous()

        self.embedding = take("embed_tokens.weight")
        self.layers = [
            _layer(config, take, i, held[i] if held and i in held else None)
            for i in range(config.num_layers)
        ]
        self.norm = RmsNorm(take("norm.weight"), config.rms_eps)
        tied = config.tie_embeddings or "lm_head.weight" not in weights
        head = self.embedding if tied else take("lm_head.weight")
        self.head = Linear(self.norm.fold_into(head))
        frequencies, scaling = inverse_frequencies(
            config.head_dim, config.rope, config.max_positions
        )
        self.expert_tokens: Tensor | None = None
        self._rope_table = ops.rope_table(
            frequencies.to(self.device), config.max_positions, attention_scaling=scaling
        )

    def count_expert_tokens(self) -> None:
        """From here on `expert_tokens` [layers with experts, E] int64 counts tokens per expert.

        Padding is not counted, nor, in a prompt's last layer, a token whose output nobody reads.
        """
        parts = [layer.mlp for layer in self.layers if isinstance(layer.mlp, Experts)]
        if parts:
            shape = (len(parts), parts[0].router.out_features)
            self.expert_tokens = torch.zeros(shape, dtype=torch.int64, device=self.device)
            for part, row in zip(parts, self.expert_tokens, strict=True):
                part.tokens = row

    def forward(
        self, inputs: StepInputs, kv: Tensor, after_layer: AfterLayer | None = None
    ) -> Tensor:
        """Final hidden states of `inputs.sample_rows`, normed: [N, hidden].

        kv           [layers, 2, NB, BS, kv_heads, head_dim]; mutated at `inputs.slots`
        after_layer  called with each layer's index once its keys and values are filed
        """
        config = self.config
        x = self.embed(inputs.token_ids)
        if inputs.media is not None and inputs.media_rows is not None:
            x.index_copy_(0, inputs.media_rows, inputs.media[:, : config.hidden].to(x.dtype))
        rope = self.rope(inputs.positions)
        live = None if self.expert_tokens is None else (inputs.slots >= 0).long()
        residual: Tensor | None = None
        last = config.num_layers - 1
        for index, layer in enumerate(self.layers):
            if residual is None:
                residual, x = x, layer.input_norm(x)
            else:
                x, residual = layer.input_norm.of_sum(x, residual)
            x = layer.attention.write_and_attend(x, rope, kv[index], inputs)
            if after_layer is not None:
                after_layer(index)
            if index == last and last >= config.num_deepstack and inputs.sample_rows is not None:
                # the rest of the last layer matters for sampled rows only
                x = x.index_select(0, inputs.sample_rows)
                residual = residual.index_select(0, inputs.sample_rows)
                live = None if live is None else live.index_select(0, inputs.sample_rows)
            x = layer.attention.out(x)
            x, residual = layer.middle_norm.of_sum(x, residual)
            x = layer.mlp(x, live)
            if index < config.num_deepstack and inputs.media is not None:
                assert inputs.media_rows is not None
                level = inputs.media[:, (index + 1) * config.hidden : (index + 2) * config.hidden]
                residual = residual + x  # the sum first, as the reference rounds
                x = torch.zeros_like(x).index_copy_(0, inputs.media_rows, level.to(x.dtype))
        if residual is None:  # no layers
            residual = torch.zeros_like(x)
        if last < config.num_deepstack and inputs.sample_rows is not None:
            x = x.index_select(0, inputs.sample_rows)
            residual = residual.index_select(0, inputs.sample_rows)
        return self.norm.of_sum(x, residual)[0]

    def embed(self, token_ids: Tensor) -> Tensor:
        """[T] → [T, hidden]."""
        return torch.nn.functional.embedding(token_ids, self.embedding)

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden] → [N, vocab], in the model's dtype."""
        return self.head(hidden)

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each float32 [T, head_dim / 2]; positions as in `StepInputs`."""
        sections = self.config.mrope_sections
        if positions.dim() == 1 or sections is None:
            return ops.rope_cos_sin(self._rope_table, positions)
        return ops.mrope_cos_sin(
            self._rope_table, positions, sections, self.config.mrope_interleaved
        )


def _layer(
    config: DecoderConfig,
    take: Callable[[str], Tensor],
    index: int,
    held: Sequence[int] | None,
) -> Layer:
    def of(name: str) -> Tensor:
        return take(f"layers.{index}.{name}")

    def norm(name: str) -> RmsNorm:
        return RmsNorm(of(f"{name}.weight"), config.rms_eps)

    heads_norm = None
    if config.qk_norm:
        heads_norm = HeadsNorm(
            norm("self_attn.q_norm"), norm("self_attn.k_norm"),
            config.num_heads, config.num_kv_heads,
        )  # fmt: skip
    parts = [f"self_attn.{name}_proj" for name in "qkv"]
    biased = config.attention_bias
    input_norm, middle_norm = norm("input_layernorm"), norm("post_attention_layernorm")
    attention = Attention(
        qkv=Linear.fused(
            [input_norm.fold_into(of(f"{part}.weight")) for part in parts],
            [of(f"{part}.bias") if biased else None for part in parts],
        ),
        out=Linear(
            of("self_attn.o_proj.weight"),
            of("self_attn.o_proj.bias") if config.output_bias else None,
        ),
        qk_norm=heads_norm,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    return Layer(
        input_norm=input_norm,
        attention=attention,
        middle_norm=middle_norm,
        mlp=_experts(config.experts, middle_norm, of, held)
        if config.experts is not None and index in config.experts.layers
        else Mlp(
            gate_up=Linear.fused(
                [middle_norm.fold_into(of(f"mlp.{name}_proj.weight")) for name in ("gate", "up")],
                [None, None],
            ),
            down=Linear(of("mlp.down_proj.weight")),
        ),
    )


def _experts(
    spec: ExpertSpec, norm: RmsNorm, of: Callable[[str], Tensor], held: Sequence[int] | None
) -> Experts:
    """Each expert's weights are copied to their place one at a time: nothing is held twice."""
    router = norm.fold_into(of("mlp.gate.weight"))
    inner = spec.intermediate
    held = range(spec.num_experts) if held is None else held
    gate_up = router.new_empty(len(held), 2 * inner, router.shape[1])
    down = router.new_empty(len(held), router.shape[1], inner)
    for place, number in enumerate(held):
        fill_expert(gate_up[place], down[place], f"mlp.experts.{number}", norm, of)
    return Experts(
        router=Linear(router),
        gate_up=gate_up,
        down=down,
        per_token=spec.per_token,
        renormalises=spec.renormalises,
    )


def fill_expert(
    gate_up: Tensor, down: Tensor, at: str, norm: RmsNorm, of: Callable[[str], Tensor]
) -> None:
    """Write one expert's weights, those of `at`, to where a layer behind `norm` holds them.

    gate_up  [2·I, hidden];  down  [hidden, I]
    """
    inner = down.shape[1]
    gate_up[:inner] = norm.fold_into(of(f"{at}.gate_proj.weight"))
    gate_up[inner:] = norm.fold_into(of(f"{at}.up_proj.weight"))
    down[:] = of(f"{at}.down_proj.weight")
