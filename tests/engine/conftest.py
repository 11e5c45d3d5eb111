"""Tiny models for all tests of the engine: prompt processors, and what transformers generates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from epidote_core.generation import MediaKind, MediaPixels
from epidote_engine.answers import check_greedy
from epidote_engine.processing import PromptProcessor, RenderedPrompt
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_engine.vision.patches import Patchifier


def processor_of(architecture, tmp_path_factory):
    directory = tmp_path_factory.mktemp("processing") / "tiny"
    save_tiny_model(directory, architecture, seed=11)
    return PromptProcessor.from_model(str(directory))


@pytest.fixture(scope="session")
def qwen2_5(tmp_path_factory):
    return processor_of(Architecture.QWEN2_5_VL, tmp_path_factory)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory):
    return processor_of(Architecture.QWEN3_VL, tmp_path_factory)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return processor_of(Architecture.LLAMA, tmp_path_factory)


@dataclass(frozen=True)
class Prompt:
    rendered: RenderedPrompt
    media: tuple[MediaPixels, ...]


@dataclass
class Case:
    """A saved random model, transformers' instance of it, and what makes its prompts."""

    path: str
    reference: Any
    processor: PromptProcessor
    native: bool  # whether decode steps are compiled
    rng: np.random.Generator

    def prompt(self, mix: str) -> Prompt:
        """A random prompt: media of odd sizes in the order of `mix`."""
        content, media = [], []
        for letter in mix:
            if letter == "t":
                size = int(self.rng.integers(1, 30))
                text = "".join(chr(c) for c in self.rng.integers(32, 127, size))
                content.append({"type": "text", "text": text})
                continue
            width, height = (int(n) for n in self.rng.integers(20, 190, 2))
            seed = int(self.rng.integers(2**31))
            if letter == "i":
                picture = noise_image(width, height, seed=seed)
                media.append(self.processor.prepare_image(picture, f"{seed}"))
            else:
                frames = [
                    np.asarray(noise_image(width, height, seed=seed + i))
                    for i in range(int(self.rng.integers(2, 8)))
                ]
                fps = float(self.rng.choice((0.7, 2.0, 3.0)))
                media.append(self.processor.prepare_video(np.stack(frames), fps, f"{seed}"))
            content.append({"type": media[-1].kind.value})
        messages = [{"role": "user", "content": content}]
        return Prompt(self.processor.render_chat(messages, media=media), tuple(media))

    def inputs(self, prompt: Prompt, answer: Sequence[int] = ()) -> dict[str, Any]:
        """What transformers takes: the prompt with its media, and what was answered so far."""
        spans = prompt.rendered.media
        ids = torch.tensor([[*prompt.rendered.token_ids, *answer]])
        types = torch.zeros_like(ids, dtype=torch.int)
        for span in spans:
            for offset, count in span.token_runs:
                types[0, offset : offset + count] = 1 if span.kind is MediaKind.IMAGE else 2
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if spans:
            inputs["mm_token_type_ids"] = types
        patchify = Patchifier(
            self.processor.spec.vision, dtype=torch.float32, device=torch.device("cpu")
        )
        for kind, pixels, grid in (
            (MediaKind.IMAGE, "pixel_values", "image_grid_thw"),
            (MediaKind.VIDEO, "pixel_values_videos", "video_grid_thw"),
        ):
            media = [medium for medium in prompt.media if medium.kind is kind]
            if media:
                inputs[pixels] = patchify(media)
                inputs[grid] = torch.tensor([medium.grid_thw for medium in media])
        seconds = [span.second_per_grid_s for span in spans if span.kind is MediaKind.VIDEO]
        if seconds and self.processor.spec.architecture is Architecture.QWEN2_5_VL:
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
        return inputs

    def expected(
        self, prompt: Prompt, num_tokens: int = 12, answer: Sequence[int] = ()
    ) -> list[int]:
        """What transformers generates after `answer`."""
        import transformers

        greedy = transformers.GenerationConfig(
            max_new_tokens=num_tokens, do_sample=False, pad_token_id=0
        )
        with torch.no_grad():
            out = self.reference.generate(**self.inputs(prompt, answer), generation_config=greedy)
        return out[0, len(prompt.rendered.token_ids) + len(answer) :].tolist()

    def is_tied(self, prompt: Prompt, answer: Sequence[int], token: int) -> bool:
        """Whether transformers itself can't tell `token` after `answer` from its best: their logits
        differ by less than 1e-5 of the logits' scale."""
        with torch.no_grad():
            logits = self.reference(**self.inputs(prompt, answer)).logits[0, -1]
        return bool(logits.max() - logits[token] < 1e-5 * logits.abs().max())

    def check(self, prompt: Prompt, tokens: list[int], num_tokens: int = 12) -> None:
        """`tokens` are what transformers generates; after a tie, what it goes on with from ours."""
        assert len(tokens) == num_tokens
        check_greedy(
            tokens,
            lambda answer: self.expected(prompt, num_tokens - len(answer), answer),
            lambda answer, token: self.is_tied(prompt, answer, token),
        )


@pytest.fixture(
    scope="session", params=[(a, s) for a in Architecture if a.has_vision for s in (1, 2)], ids=str
)
def vl_case(request, tmp_path_factory):
    architecture, seed = request.param
    path = tmp_path_factory.mktemp("equality") / "model"
    reference = save_tiny_model(path, architecture, seed)
    reference.generation_config.eos_token_id = None  # compare past the end token
    processor = PromptProcessor.from_model(str(path))
    return Case(str(path), reference, processor, seed == 1, np.random.default_rng(seed))
