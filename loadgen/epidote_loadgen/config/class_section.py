"""This file is about the section on classes: what the requests of each say."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from epidote_loadgen.bounds import MOST_IMAGES, MOST_PIXELS, MOST_PREFIX_TOKENS
from epidote_loadgen.config.distribution_section import DistributionSection
from epidote_loadgen.config.section import (
    NUMBER,
    Count,
    NotNegative,
    Pool,
    Positive,
    Section,
    Share,
    Tokens,
    TokensOrNone,
    Weights,
)
from epidote_loadgen.pictures import ImageFormat
from epidote_loadgen.questions import MAX_SCENES
from epidote_loadgen.workload.body import Api
from epidote_loadgen.workload.resolution import ResolutionMix
from epidote_loadgen.workload.zipf import Zipf

_ABOUT: tuple[Literal["sum", "fact", "picture"], ...] = ("sum", "fact", "picture")
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class ReuseSection(Section):
    """A pool of `count` things, the r-th as likely as 1 / r ** zipf."""

    count: Pool
    zipf: NotNegative = 1.0

    def build(self) -> Zipf:
        return Zipf(count=self.count, exponent=self.zipf)


class PrefixSection(ReuseSection):
    """Shared system prompts of `tokens` each."""

    tokens: Tokens

    @model_validator(mode="after")
    def _all_fit_into_memory(self) -> Self:
        if self.count * self.tokens > MOST_PREFIX_TOKENS:
            raise ValueError(
                f"count x tokens: want at most {MOST_PREFIX_TOKENS} tokens of prefixes, "
                f"found {self.count} x {self.tokens}"
            )
        return self


class ImagesSection(Section):
    count: DistributionSection = DistributionSection(fixed=1)
    resolutions: dict[str, Positive] = Field(default_factory=dict)
    format: ImageFormat = ImageFormat.PNG
    quality: Annotated[int, Field(ge=1, le=100), NUMBER] = 90
    max_items: Annotated[int, Field(ge=1, le=9), NUMBER] = 6
    reuse: ReuseSection | None = None

    @field_validator("resolutions", mode="before")
    @classmethod
    def _list_is_even(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        return dict.fromkeys(value, 1.0) if isinstance(value, list) else value

    @field_validator("resolutions")
    @classmethod
    def _sizes(cls, value: dict[str, float]) -> dict[str, float]:
        for size in value:
            if not _SIZE.fullmatch(size):
                raise ValueError(f"want sizes like 640x480, found {size!r}")
            width, height = size.split("x")
            if int(width) * int(height) > MOST_PIXELS:
                raise ValueError(f"want at most {MOST_PIXELS} pixels, found {size}")
        return value

    @field_validator("count")
    @classmethod
    def _few_enough(cls, value: DistributionSection) -> DistributionSection:
        most = value.build().most
        if most is not None and most > MOST_IMAGES:
            raise ValueError(f"want at most {MOST_IMAGES} pictures in a request, found {most}")
        return value

    def mix(self) -> ResolutionMix:
        sizes = {}
        for size, weight in self.resolutions.items():
            width, height = size.split("x")
            sizes[int(width), int(height)] = weight
        return ResolutionMix(sizes)


class _ClassSection(Section):
    """What all kinds share."""

    weight: NotNegative = 1.0
    category: str = ""
    tenants: Weights | None = None
    prefix: PrefixSection | None = None
    images: ImagesSection | None = None
    temperature: NotNegative = 0.0
    extra_body: dict[str, Any] = Field(default_factory=dict)


class LengthsSection(_ClassSection):
    """Filler of given lengths. `exact` insists on the output's length (vLLM's ignore_eos)."""

    kind: Literal["lengths"]
    prompt_tokens: DistributionSection
    output_tokens: DistributionSection
    exact: bool = True
    template_tokens: TokensOrNone = 0
    api: Api = Api.CHAT
    token_ids: bool = False

    @model_validator(mode="after")
    def _ids_are_for_completions(self) -> Self:
        if self.token_ids and self.api is not Api.COMPLETIONS:
            raise ValueError("token_ids: only with api completions")
        if self.api is Api.COMPLETIONS and self.images is not None:
            raise ValueError("images: only with api chat")
        return self


class QuestionsSection(_ClassSection):
    """Questions on generated pictures, with known answers; conversations with `turns` > 1."""

    kind: Literal["questions"]
    turns: Annotated[int, Field(ge=1, le=1000), NUMBER] = 1  # each repeats those before it
    sessions: Count = 1  # conversations that go on at once
    max_tokens: Tokens = 64

    @model_validator(mode="after")
    def _few_pictures(self) -> Self:
        most = self.images.count.build().most if self.images else 1
        if most is None or most > MAX_SCENES:
            raise ValueError(
                f"images.count: questions are about at most {MAX_SCENES} pictures, got {most}"
            )
        return self


class ParaphrasesSection(_ClassSection):
    """Groups of questions that mean the same, with traps: for trying a response cache."""

    kind: Literal["paraphrases"]
    groups: ReuseSection
    about: list[Literal["sum", "fact", "picture"]] = Field(
        default_factory=lambda: list(_ABOUT), min_length=1
    )
    trap_ratio: Share = 0.2
    max_tokens: Tokens = 32


class TraceClassSection(_ClassSection):
    """The sizes of a trace's rows; wants arrivals of kind trace."""

    kind: Literal["trace"]
    exact: bool = True
    image_token_side_px: Annotated[int, Field(ge=1, le=40), NUMBER] = 28  # Qwen2-VL; 32 in Qwen3-VL
    template_tokens: TokensOrNone = 0
    api: Api = Api.CHAT
    token_ids: bool = False

    @model_validator(mode="after")
    def _ids_are_for_completions(self) -> Self:
        if self.token_ids and self.api is not Api.COMPLETIONS:
            raise ValueError("token_ids: only with api completions")
        return self


ClassSection = Annotated[
    LengthsSection | QuestionsSection | ParaphrasesSection | TraceClassSection,
    Field(discriminator="kind"),
]
