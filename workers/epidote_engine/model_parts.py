"""This file is about loading the halves of a model that a role needs, and releasing the other."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from epidote_core.roles import Role
from epidote_engine.models.decoder import DecoderLM
from epidote_engine.settings import EngineConfig, WeightsPolicy
from epidote_engine.weight_store import Part, WeightStore

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec
    from epidote_engine.parallel.expert_places import ExpertPlaces
    from epidote_engine.parallel.shards import Shards
    from epidote_engine.runner import Runner
    from epidote_engine.vision.encoder import VisionEncoder


class ModelParts:
    """`runner` and `encoder` are None while their weights are not loaded."""

    def __init__(
        self,
        spec: "ModelSpec",
        config: EngineConfig,
        dtype: torch.dtype,
        make_runner: Callable[["ModelParts"], "Runner"],
        shards: "Shards | None" = None,
    ) -> None:
        self._spec, self._shards = spec, shards
        self._dtype, self._device = dtype, config.device
        self._quantization = config.quantization
        self.expert_places = _expert_places(spec, config, shards)
        self._compiles_vision = config.compile_vision
        self._counts_experts = config.count_expert_tokens
        self._at_random = config.random_weights
        self._releases = config.weights_policy is WeightsPolicy.RELEASE
        self._make_runner = make_runner
        self._language = self._store(Part.LANGUAGE)
        self._vision = self._store(Part.VISION) if spec.vision is not None else None
        self.runner: Runner | None = None
        self.encoder: VisionEncoder | None = None

    def take_role(self, role: Role) -> None:
        """Load what `role` needs; release what it does not, if that is the policy."""
        if role.needs_language_weights and self.runner is None:
            self.runner = self._make_runner(self)
        if role.needs_encoder_weights and self.encoder is None and self._vision is not None:
            from epidote_engine.vision.encoder import VisionEncoder

            self.encoder = VisionEncoder(
                self._spec,
                self._vision.load(),
                self._dtype,
                self._device,
                compiles=self._compiles_vision,
            )
        if self._releases and not role.needs_language_weights:
            self.runner = None
            if self.expert_places is not None:
                self.expert_places.detach()
        if self._releases and not role.needs_encoder_weights and self._vision is not None:
            self.encoder = None
            self._vision.release()

    def decoder(self) -> DecoderLM:
        """A new language model. The files' tensors are dropped: fused copies replace them."""
        if self._shards is not None:
            from epidote_engine.parallel.decoder import ParallelDecoderLM

            model: DecoderLM = ParallelDecoderLM(
                self._spec, self._shards, self._dtype, self._device, self.expert_places,
                self._quantization,
            )  # fmt: skip
            return self._counting(model)
        weights = self._language.source()
        self._language.release()
        model = DecoderLM(self._spec.decoder, weights, self._dtype, self._device)
        if self._quantization is not None:
            from epidote_engine.layers.quantized_linear import quantize

            quantize(model, self._quantization)
        return self._counting(model)

    def _counting(self, model: DecoderLM) -> DecoderLM:
        if self._counts_experts:
            model.count_expert_tokens()
        return model

    def _store(self, part: Part) -> WeightStore:
        return WeightStore(
            self._spec,
            part,
            dtype=self._dtype,
            device=self._device,
            host_copy=self._releases,
            at_random=self._at_random,
        )


def _expert_places(
    spec: "ModelSpec", config: EngineConfig, shards: "Shards | None"
) -> "ExpertPlaces | None":
    if not config.expert_parallel:
        return None
    from epidote_engine.parallel.expert_places import ExpertPlaces

    assert shards is not None, "the engine has checked it"
    return ExpertPlaces(spec, shards, config.num_redundant_experts)
