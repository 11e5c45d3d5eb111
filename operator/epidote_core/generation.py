"""This file is about one request on its way through the fleet: what crosses process borders."""

from dataclasses import dataclass, field
from enum import StrEnum

from epidote_core.sampling import SamplingParams


class MediaKind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, kw_only=True)
class MediaSpan:
    """One medium's place in the prompt: `num_tokens` placeholders from `offset` on.

    `key` is the hex digest of the decoded content and the processing options: equal keys mean
    equal embeddings. `grid_thw` counts patches (time, height, width) before spatial merging.
    A video with timestamps between its frames has its placeholders in several runs; then
    `runs` holds each run's (offset, num_tokens) and `num_tokens` is their sum.
    """

    key: str
    kind: MediaKind
    offset: int
    num_tokens: int
    grid_thw: tuple[int, int, int]
    second_per_grid_s: float = 0.0  # video only: seconds between two temporal grid steps
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def token_runs(self) -> tuple[tuple[int, int], ...]:
        """(offset, num_tokens) of every run of placeholders, in order."""
        return self.runs or ((self.offset, self.num_tokens),)

    @property
    def end(self) -> int:
        """One past the last placeholder."""
        offset, count = self.token_runs[-1]
        return offset + count


@dataclass(frozen=True, kw_only=True)
class MediaPixels:
    """A medium ready to be encoded: resized to the model's grid, not yet normalised.

    `data` is uint8 RGB, C-contiguous [num_frames, height, width, 3]; images have one frame.
    """

    key: str
    kind: MediaKind
    num_frames: int
    height: int
    width: int
    grid_thw: tuple[int, int, int]
    num_tokens: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a request's `n` completions, with the tokens that the client already has.

    A fresh choice has none; one that continues after its worker died carries them all, and its next
    token is output position `len(emitted_token_ids)`.
    """

    index: int = 0
    emitted_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which worker serves which stage of a request; `encode` maps each media key to its worker."""

    prefill: str
    decode: str
    encode: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A tokenised request. The prompt holds every media placeholder already expanded.

    `cache_salt` parts the prefix cache: blocks are shared only between equal salts (tenants,
    lossy options).
    """

    request_id: str
    prompt_token_ids: tuple[int, ...] = field(repr=False)
    sampling: SamplingParams
    media: tuple[MediaSpan, ...] = ()
    choices: tuple[Choice, ...] = (Choice(),)
    cache_salt: str = ""
    priority: int = 0  # lower is sooner


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A sampled token's log-probability and its most likely alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """What one worker did for a request, on that worker's own clock (durations only)."""

    stage: str  # a Stage value, or "transfer"
    worker_id: str
    queued_s: float = 0.0
    busy_s: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """Some more tokens of one choice.

    `text` is what became displayable: it never splits a character and never shows a part of a stop
    string. It is a function of all token ids so far, hence concatenated texts agree whichever
    worker produced them. The last chunk of a choice has `finish_reason` and the stage timings.
    """

    index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    num_cached_tokens: int = 0
    timings: tuple[StageTiming, ...] = ()
