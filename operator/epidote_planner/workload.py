"""This file is about demand cut into classes of similar requests, the input of sizing."""

from collections.abc import Iterable
from dataclasses import dataclass

from epidote_core.slo import Slo
from epidote_planner.demand import ModalityDemand
from epidote_planner.distribution import WEIGHTS
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import CacheSignals


@dataclass(frozen=True, kw_only=True)
class RequestClass:
    """Requests of one modality and one size. Long prompts come with many image tokens."""

    rps: float
    slo: Slo
    prefill_tokens: float  # to compute: after the prefix cache
    context_tokens: float  # of the prompt that the prefix cache already holds
    images: float  # to encode: 0 for text
    image_tokens: float
    encode_ratio: float  # share of the class that the encoder cache does not answer
    output_tokens: float

    @property
    def prompt_tokens(self) -> float:
        return self.prefill_tokens + self.context_tokens


def request_classes(
    demand: Iterable[ModalityDemand],
    policy: PlannerPolicy,
    cache: CacheSignals,
    *,
    factor: float = 1.0,
) -> tuple[RequestClass, ...]:
    """Four classes a modality, at the weights of `Distribution.points`; `factor` scales rates."""
    classes = []
    for item in demand:
        if item.rps <= 0.0:
            continue
        slo = policy.slo_for(item.modality)
        points = zip(
            WEIGHTS,
            item.input_tokens.points(),
            item.images.points(),
            item.image_tokens.points(),
            strict=True,
        )
        for weight, text_tokens, images, image_tokens in points:
            prompt = max(1.0, text_tokens + image_tokens)
            cached = prompt * cache.prefix_hit_ratio
            has_media = item.modality.needs_encode and image_tokens > 0.0
            classes.append(
                RequestClass(
                    rps=item.rps * weight * factor,
                    slo=slo,
                    prefill_tokens=max(1.0, prompt - cached),
                    context_tokens=cached,
                    images=max(1.0, images) if has_media else 0.0,
                    image_tokens=image_tokens if has_media else 0.0,
                    encode_ratio=1.0 - cache.encoder_hit_ratio if has_media else 0.0,
                    output_tokens=max(1.0, item.output_tokens.mean),
                )
            )
    return tuple(classes)
