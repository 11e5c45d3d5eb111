"""This file is about prompts: messages, texts and pictures to what the engine takes. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from epidote_core.errors import InvalidRequest, PromptTooLong
from epidote_core.generation import MediaKind, MediaPixels, MediaSpan
from epidote_engine.chat_messages import template_messages
from epidote_engine.chat_template import ChatTemplate
from epidote_engine.config import ModelSpec, load_model_spec
from epidote_engine.image_settings import ImageSettings
from epidote_engine.layers.mrope_positions import mrope_positions
from epidote_engine.media_resize import ORIENTATION, resize_frames, resize_image, upright_rgb
from epidote_engine.placeholder_shield import PlaceholderShield
from epidote_engine.placeholders import Placeholders, VideoPixels
from epidote_engine.tokenizer import TextTokenizer
from epidote_engine.vision.spec import Tower

MIN_FPS = 0.0001  # a frame in three hours; times of far slower ones would overflow


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """A prompt with every media placeholder expanded."""

    token_ids: tuple[int, ...]
    media: tuple[MediaSpan, ...] = ()


class PromptProcessor:
    """Everything between a client's request and token ids, for one model.

    Safe to call from several threads. Errors that a client caused are `InvalidRequest`.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Load tokenizer and chat template.

        Raises:
            InvalidModel: a file is missing or wrong.
        """
        self.spec = spec
        self._tokenizer = TextTokenizer(spec.path)
        self._template = ChatTemplate(spec.path, self._tokenizer.named_specials)
        self._placeholders: Placeholders | None = None
        if spec.vision is not None and spec.media_tokens is not None:
            self._placeholders = Placeholders.of_tokenizer(
                spec.media_tokens,
                self._tokenizer,
                temporal_patch=spec.vision.temporal_patch,
                frames_apart=spec.vision.tower is Tower.QWEN3,
            )

    @classmethod
    def from_model(cls, model: str) -> "PromptProcessor":
        """`model` is an alias, a directory, or a hub id.

        Raises:
            InvalidModel: not found or not supported.
        """
        return cls(load_model_spec(model))

    @property
    def model_name(self) -> str:
        """The name as given; of a directory its last part."""
        name = self.spec.name
        return Path(name).expanduser().resolve().name if Path(name).is_dir() else name

    @property
    def max_model_len(self) -> int:
        """Prompt and answer together, in tokens."""
        return self.spec.max_positions

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self.spec.eos_token_ids

    @property
    def supports_images(self) -> bool:
        return self._placeholders is not None

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        media: Sequence[MediaPixels] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> RenderedPrompt:
        """Apply the chat template; the i-th media part of the conversation is `media[i]`.

        A message is {"role", "content": str | list of parts, …}; a part's type is text,
        image_url, image, or video (what it carries besides is not looked at). The spelling of a
        placeholder in a client's text stays text: nobody can conjure up an image.

        Raises:
            InvalidRequest: `field` names the offending part.
            PromptTooLong: the text is certainly longer than the model; it was not tokenised.
        """
        readable, kinds = template_messages(messages, takes_media=self.supports_images)
        if kinds != [medium.kind for medium in media]:
            raise InvalidRequest(
                f"messages: {len(kinds)} media parts ({', '.join(kinds)}) for {len(media)} media",
                "messages",
            )
        shield = PlaceholderShield(self._placeholders, self._tokenizer)
        text = self._template.render(
            shield.cover(readable),
            tools=shield.cover(tools),
            add_generation_prompt=add_generation_prompt,
            **template_kwargs,
        )
        self._check_chars(shield.num_chars(text), "messages")
        if self._placeholders is None:
            return RenderedPrompt(token_ids=tuple(shield.encode(text)))
        placed, slots = self._placeholders.place(text, media)
        token_ids, spans = self._placeholders.expand(shield.encode(placed), media, slots)
        self._check_times(len(token_ids), spans)
        return RenderedPrompt(token_ids=token_ids, media=spans)

    def render_text(self, prompt: str | list[int]) -> RenderedPrompt:
        """A raw prompt: text gets the model's special tokens, ids are taken as they are.

        Raises:
            InvalidRequest: an id outside the vocabulary.
            PromptTooLong: a text certainly longer than the model.
        """
        if isinstance(prompt, str):
            return RenderedPrompt(token_ids=tuple(self.tokenize(prompt, add_special_tokens=True)))
        for token_id in prompt:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequest(
                    f"prompt: token ids must be in [0, {self.vocab_size}), got {token_id}", "prompt"
                )
        return RenderedPrompt(token_ids=tuple(prompt))

    def prepare_image(self, image: Image.Image, content_key: str) -> MediaPixels:
        """Turn upright, convert to RGB, resize to the model's grid, as the model's processor does.

        `content_key` names the picture's decoded content; the result's key adds every option that
        changes the embedding.

        Raises:
            InvalidRequest: the model takes no images, or an aspect ratio beyond 200.
        """
        settings = self._image_settings()
        turned = image.getexif().get(ORIENTATION, 1)
        resized = resize_image(upright_rgb(image), settings)
        rows, columns = resized.height // settings.patch, resized.width // settings.patch
        return MediaPixels(
            key=_key("image", content_key, str(turned), settings.fingerprint),
            kind=MediaKind.IMAGE,
            num_frames=1,
            height=resized.height,
            width=resized.width,
            grid_thw=(1, rows, columns),
            num_tokens=rows * columns // settings.merge**2,
            data=resized.tobytes(),
        )

    def prepare_video(self, frames: NDArray[np.uint8], fps: float, content_key: str) -> VideoPixels:
        """Resize every frame; `frames` [frames, height, width, 3] uint8 were sampled at `fps`.

        Raises:
            InvalidRequest: the model takes no videos, or frames or rate are no video's.
        """
        settings = self._image_settings()
        if not MIN_FPS <= fps < float("inf"):
            raise InvalidRequest(f"video: frames per second must be at least {MIN_FPS}, got {fps}")
        resized = np.ascontiguousarray(resize_frames(frames, settings))
        num_frames, height, width, _ = resized.shape
        times = -(-num_frames // settings.temporal_patch)
        rows, columns = height // settings.patch, width // settings.patch
        return VideoPixels(
            # the rate changes no embedding but positions, hence the KV that the key also names
            key=_key("video", content_key, repr(float(fps)), settings.fingerprint),
            kind=MediaKind.VIDEO,
            num_frames=num_frames,
            height=height,
            width=width,
            grid_thw=(times, rows, columns),
            num_tokens=times * rows * columns // settings.merge**2,
            data=resized.tobytes(),
            fps=float(fps),
        )

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; the spelling of a special token becomes that token.

        Raises:
            PromptTooLong: a text certainly longer than the model.
        """
        self._check_chars(len(text), "prompt")
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens spelled out."""
        return self._tokenizer.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes one token stands for; may be part of a character."""
        return self._tokenizer.token_bytes(token_id)

    def _check_chars(self, num_chars: int, field: str) -> None:
        """Refuse before tokenising what can't fit: that takes a second for 300 kB."""
        longest = self._tokenizer.max_chars_per_token
        if longest is not None and num_chars > longest * self.max_model_len:
            raise PromptTooLong(
                f"{field}: {num_chars} characters are more than {self.max_model_len} tokens",
                field,
            )

    def _check_times(self, num_tokens: int, spans: Sequence[MediaSpan]) -> None:
        """A video's time may run ahead of token indices, so their limit does not bound it."""
        if any(span.kind is MediaKind.VIDEO for span in spans):
            positions, _ = mrope_positions(num_tokens, spans, self.spec)
            if positions[0].max() >= max(self.max_model_len, num_tokens):
                raise InvalidRequest(
                    f"messages: videos reach position {positions[0].max()} in time, the model "
                    f"has {self.max_model_len}",
                    "messages",
                )

    def _image_settings(self) -> ImageSettings:
        if self.spec.images is None:
            raise InvalidRequest(f"model {self.model_name!r} takes no images or videos")
        return self.spec.images


def _key(*parts: str) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())  # lengths: parts can't run into each other
    return digest.hexdigest()
