"""This file is about media in a prompt: from one placeholder each to one token for each row.

A template marks every medium by one placeholder token. Expansion repeats it to the number of the
medium's rows. Qwen3-VL shows a video as separate frames, each after its time in text: then one
placeholder becomes several runs, and the brackets around it go (each frame has its own).
Source: Qwen3-VL's processor as its authors published it (transformers 4.57); transformers 5.23
leaves the outer brackets in place, which the model has not seen in training.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaKind, MediaPixels, MediaSpan
from epidote_engine.config import MediaTokens
from epidote_engine.model_files import InvalidModel
from epidote_engine.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class VideoPixels(MediaPixels):
    """A video with the rate of its frames, which only the prompt needs."""

    fps: float


@dataclass(frozen=True, kw_only=True)
class Placeholders:
    """The spellings and ids of one model's media tokens."""

    tokens: MediaTokens
    image: str
    video: str
    start: str
    end: str
    temporal_patch: int
    frames_apart: bool  # a video's frames stand apart, each after its timestamp

    @classmethod
    def of_tokenizer(
        cls,
        tokens: MediaTokens,
        tokenizer: TextTokenizer,
        *,
        temporal_patch: int,
        frames_apart: bool,
    ) -> "Placeholders":
        """Look the spellings up.

        Raises:
            InvalidModel: the tokenizer has no such token, or cuts its spelling into several.
        """
        spelled: dict[str, str] = {}
        for name in ("image", "video", "start", "end"):
            token_id = getattr(tokens, name)
            token = tokenizer.token_of(token_id)
            if token is None or tokenizer.encode(token, add_special_tokens=False) != [token_id]:
                raise InvalidModel(
                    f"config.json says that token {token_id} is the {name} token, but the "
                    f"tokenizer has {token!r} there, which is no special token"
                )
            spelled[name] = token
        return cls(
            tokens=tokens, temporal_patch=temporal_patch, frames_apart=frames_apart, **spelled
        )

    def place(self, text: str, media: Sequence[MediaPixels]) -> tuple[str, list[int]]:
        """Write the frames of videos apart where the model wants it.

        Returns the text and, for each placeholder then in it, the index of its medium.

        Raises:
            InvalidRequest: the template showed fewer or other media than there are.
        """
        image, video = re.escape(self.image), re.escape(self.video)
        bracketed = f"{re.escape(self.start)}{video}{re.escape(self.end)}"
        slots: list[int] = []
        used = 0

        def show(found: re.Match[str]) -> str:
            nonlocal used
            kind = MediaKind.IMAGE if found[0] == self.image else MediaKind.VIDEO
            if used >= len(media) or media[used].kind is not kind:
                raise _mismatch(used, media)
            medium, used = media[used], used + 1
            if kind is MediaKind.IMAGE or not self.frames_apart:
                slots.append(used - 1)
                return found[0]
            slots.extend([used - 1] * medium.grid_thw[0])
            return "".join(
                f"<{at_s:.1f} seconds>{self.start}{self.video}{self.end}"
                for at_s in self.frame_times(medium)
            )

        placed = re.sub(f"{bracketed}|{video}|{image}", show, text)
        if used != len(media):
            raise _mismatch(used, media)
        return placed, slots

    def frame_times(self, medium: MediaPixels) -> list[float]:
        """Seconds of every temporal patch of a video: the mean of its first and last frame's."""
        fps, step, last = frames_per_second(medium), self.temporal_patch, medium.num_frames - 1
        return [
            (min(i * step, last) / fps + min(i * step + step - 1, last) / fps) / 2
            for i in range(medium.grid_thw[0])
        ]

    def expand(
        self, ids: Sequence[int], media: Sequence[MediaPixels], slots: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[MediaSpan, ...]]:
        """Repeat every placeholder to its medium's rows; `slots` is from `place`."""
        expanded: list[int] = []
        runs: list[list[tuple[int, int]]] = [[] for _ in media]
        shares = [slots.count(i) for i in range(len(media))]
        waiting = iter(slots)
        for token_id in ids:
            if token_id not in (self.tokens.image, self.tokens.video):
                expanded.append(token_id)
                continue
            index = next(waiting)
            count = media[index].num_tokens // shares[index]
            runs[index].append((len(expanded), count))
            expanded.extend([token_id] * count)
        spans = (self._span(m, r) for m, r in zip(media, runs, strict=True))
        return tuple(expanded), tuple(spans)

    def _span(self, medium: MediaPixels, runs: list[tuple[int, int]]) -> MediaSpan:
        is_video = medium.kind is MediaKind.VIDEO
        seconds = self.temporal_patch / frames_per_second(medium) if is_video else 0.0
        return MediaSpan(
            key=medium.key,
            kind=medium.kind,
            offset=runs[0][0],
            num_tokens=medium.num_tokens,
            grid_thw=medium.grid_thw,
            second_per_grid_s=seconds,
            runs=tuple(runs) if len(runs) > 1 else (),
        )


def frames_per_second(medium: MediaPixels) -> float:
    """The rate of a video that `prepare_video` made.

    Raises:
        ValueError: it lost its rate on the way.
    """
    if not isinstance(medium, VideoPixels):
        raise ValueError(f"video {medium.key[:12]} has no frame rate: keep prepare_video's value")
    return medium.fps


def _mismatch(shown: int, media: Sequence[MediaPixels]) -> InvalidRequest:
    kinds = ", ".join(medium.kind for medium in media)
    return InvalidRequest(
        f"messages: the chat template does not show the media in order (it differs at number "
        f"{shown + 1} of [{kinds}])",
        "messages",
    )
