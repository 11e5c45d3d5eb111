"""This file is about `transformers` as a peer in a benchmark, each way of running it at its best:
inputs ready on the device, one warm model, nothing built inside the timed call."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from epidote_core.generation import MediaPixels

NEVER = -1  # as an end-of-sequence id: every answer has its full length


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(token ids, attention mask), each [prompts, longest]."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(t)) + list(t) for t in prompts])
    mask = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in prompts])
    return ids, mask


def image_inputs(processor: Any, media: Sequence[MediaPixels]) -> dict[str, Any]:
    """`generate`'s keyword arguments for these pictures, which are resized already."""
    from PIL import Image

    if not media:
        return {}
    images = [Image.frombytes("RGB", (m.width, m.height), m.data) for m in media]
    return dict(processor(images=images, return_tensors="pt", do_resize=False))


def as_qwen3(model: Any) -> Any:
    """A Qwen3-VL's language half as a plain text model, which `generate_batch` can run.

    On text the three position axes are equal, so plain rotary embedding computes the same.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    text = model.config.text_config
    rope = {k: v for k, v in (text.rope_parameters or {}).items() if not k.startswith("mrope")}
    fields = {
        key: value
        for key, value in text.to_dict().items()
        if key not in ("model_type", "rope_parameters", "architectures")
    }
    twin = Qwen3ForCausalLM(Qwen3Config(**fields, rope_parameters=rope)).eval()
    weights = {f"model.{k}": v for k, v in model.model.language_model.state_dict().items()}
    weights["lm_head.weight"] = model.lm_head.weight
    twin.load_state_dict(weights)
    return twin


@contextlib.contextmanager
def continuous_batching(
    model: Any, pad: int, *, num_blocks: int | None = 64, max_batch_tokens: int = 2048
) -> Iterator[Any]:
    """`generate_batch` of `model` with a manager that outlives the call: (prompts, new tokens) →
    answers. `num_blocks` None: as many as the device has memory for."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    batching = ContinuousBatchingConfig(num_blocks=num_blocks, max_batch_tokens=max_batch_tokens)

    def answer(prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
        out = model.generate_batch(
            [list(tokens) for tokens in prompts],
            generation_config=GenerationConfig(
                max_new_tokens=num_tokens, do_sample=False, eos_token_id=NEVER, pad_token_id=pad
            ),
            continuous_batching_config=batching,
            persistent_manager=True,
        )
        return [list(result.generated_tokens) for result in out.values()]

    try:
        yield answer
    finally:
        model.destroy_cached_continuous_batching_manager()
