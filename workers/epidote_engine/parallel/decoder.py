"""This file is about a rank's part of a decoder: the same pass, with sums where parts meet."""

import logging

import torch
from torch import Tensor

from epidote_engine.config import ModelSpec
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts
from epidote_engine.layers.norm import RmsNorm
from epidote_engine.layers.quantized_linear import own, quantize
from epidote_engine.models.decoder import AfterLayer, DecoderLM
from epidote_engine.models.step_inputs import StepInputs
from epidote_engine.parallel.expert_places import ExpertPlaces
from epidote_engine.parallel.placed_experts import PlacedExperts
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights

logger = logging.getLogger(__name__)


class RowParallelLinear(Linear):
    """A projection whose input is cut: the ranks' outputs are added."""

    def __init__(self, part: Linear, shards: Shards) -> None:
        self._part, self._shards = part, shards
        self.out_features = part.out_features

    def __call__(self, x: Tensor, *, activation: str | None = None) -> Tensor:
        """x [T, this rank's inputs] → [T, out], the same on every rank."""
        assert activation is None, "an activation belongs behind the sum"
        return self._shards.summed(self._part(x))


class ShardedExperts(Experts):
    """A part of every expert's channels; the ranks' outputs are added, so each routes alike."""

    def __init__(self, part: Experts, shards: Shards) -> None:
        super().__init__(
            part.router, part.gate_up, part.down, part.per_token, part.renormalises, part.tokens,
            part.scales,
        )  # fmt: skip
        self._shards = shards

    def __call__(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """x [T, hidden] → [T, hidden], the same on every rank."""
        return self._shards.summed(super().__call__(x, live))


class ParallelDecoderLM(DecoderLM):
    """`DecoderLM` on one rank; every rank must make the same calls. Logits are whole on each."""

    def __init__(
        self,
        spec: ModelSpec,
        shards: Shards,
        dtype: torch.dtype,
        device: torch.device | str,
        places: ExpertPlaces | None = None,
        quantization: str | None = None,
    ) -> None:
        """Reads this rank's part of the weights; `places` None: of every expert a slice.

        quantization  "int8" | "fp8": keep them in 8 bits, with the whole model's scales: ranks ask
                      each other for their rows' largest numbers

        Raises:
            InvalidRequest: the model can't be cut into `shards.size` parts, or its weights not be
                kept so on this device.
            InvalidModel: see `weights`.
        """
        config = shards.own(spec.decoder, places.num_redundant if places else None)
        self._shards = shards
        self._start, self._end = shards.vocabulary(config.vocab)
        weights = ShardedWeights(spec, shards, device=device, whole_experts=places is not None)
        super().__init__(config, weights, dtype, device, places.held() if places else None)
        if quantization is not None:  # before the parts are wrapped
            cut = shards.largest
            of_experts = cut if places is None else own
            quantize(self, quantization, largest=cut, largest_of_experts=of_experts)
        placed: list[tuple[PlacedExperts, RmsNorm]] = []
        for index, layer in enumerate(self.layers):
            layer.attention.out = RowParallelLinear(layer.attention.out, shards)
            if not isinstance(layer.mlp, Experts):
                layer.mlp.down = RowParallelLinear(layer.mlp.down, shards)
            elif places is None:
                layer.mlp = ShardedExperts(layer.mlp, shards)
            else:
                experts = PlacedExperts(layer.mlp, shards, places.slots, places.layer(index))
                placed.append((experts, layer.middle_norm))
                layer.mlp = experts
        if places is not None:
            places.attach(placed, dtype)
        logger.info("weights read", extra={"rank": shards.rank, "bytes": weights.bytes_read})

    def forward(
        self, inputs: StepInputs, kv: Tensor, after_layer: AfterLayer | None = None
    ) -> Tensor:
        """See `DecoderLM.forward`. A layer is told of when it is there on every rank.

        That is when the sum behind it is done: with the next layer; behind the last one there is a
        sum for that alone. All ranks must give a hook, or none. Also without one the last layer's
        KV is there on every rank when the step is over on one, since logits are gathered behind it;
        where nobody is sampled, a sum takes their place.
        """
        if after_layer is None:
            hidden = super().forward(inputs, kv)
            if inputs.sample_rows is not None and not inputs.sample_rows.numel():
                self._shards.summed(torch.zeros(1, device=self.device))
            return hidden

        def one_later(layer: int) -> None:
            if layer:
                after_layer(layer - 1)

        hidden = super().forward(inputs, kv, one_later)
        self._shards.summed(torch.zeros(1, device=self.device))
        after_layer(self.config.num_layers - 1)
        return hidden

    def embed(self, token_ids: Tensor) -> Tensor:
        """[T] → [T, hidden]; a token's row lies on one rank, the others add zeros."""
        is_here = (token_ids >= self._start) & (token_ids < self._end)
        rows = torch.where(is_here, token_ids - self._start, 0)
        part = torch.nn.functional.embedding(rows, self.embedding)
        return self._shards.summed(part.masked_fill_(~is_here[:, None], 0))

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden] → [N, vocab], the same on every rank."""
        return self._shards.side_by_side(super().logits(hidden), self.config.vocab)
