"""This file is about the section on promises: objectives for classes of requests."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from epidote_core.modality import Modality
from epidote_loadgen.config.section import NUMBER, Positive, Section
from epidote_loadgen.slo import Match, Objective, SloClass, SloTable

Ratio = Annotated[float, Field(gt=0.0, lt=1.0), NUMBER]
Whole = Annotated[int, Field(ge=0), NUMBER]
OneOrMore = Annotated[list[str], Field(min_length=1)]


class ObjectiveSection(Section):
    """At least one limit, or `served`; `ratio` of the requests meet all of them."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    itl_ms: Positive | None = None  # a request's own 99th percentile gap
    e2e_ms: Positive | None = None
    correct: bool = False
    served: bool = False  # said where nothing else is promised than a whole reply
    ratio: Ratio = 0.99

    @field_validator("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", mode="before")
    @classmethod
    def _a_limit_is_something(cls, value: object) -> object:
        # A limit left empty would promise less than its file says.
        if value is None:
            raise ValueError("want a number > 0, found nothing; leave the field out for no limit")
        return value

    @model_validator(mode="after")
    def _promises_something(self) -> Self:
        limits = (self.ttft_ms, self.tpot_ms, self.itl_ms, self.e2e_ms)
        if all(limit is None for limit in limits) and not self.correct and not self.served:
            # A share of nothing in particular: more likely a limit was forgotten.
            raise ValueError(
                "want a limit (ttft_ms, tpot_ms, itl_ms, e2e_ms, correct: true), or served: true "
                f"for replies of any speed; found ratio {self.ratio:g} alone"
            )
        return self

    def build(self) -> Objective:
        def limit(value_ms: float | None) -> float | None:
            return None if value_ms is None else value_ms / 1000.0

        return Objective(
            ttft_s=limit(self.ttft_ms),
            tpot_s=limit(self.tpot_ms),
            itl_s=limit(self.itl_ms),
            e2e_s=limit(self.e2e_ms),
            correct=self.correct,
            ratio=self.ratio,
        )


class MatchSection(Section):
    """Which requests; a field left out matches any. One value may stand without a list."""

    classes: OneOrMore = Field(default_factory=list)
    modality: Annotated[list[Modality], Field(min_length=1)] = Field(default_factory=list)
    tenant: OneOrMore = Field(default_factory=list)
    category: OneOrMore = Field(default_factory=list)
    min_images: Whole = 0
    max_images: Whole | None = None
    min_prompt_tokens: Whole = 0
    max_prompt_tokens: Whole | None = None

    @field_validator("classes", "modality", "tenant", "category", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low, high, name in (
            (self.min_images, self.max_images, "max_images"),
            (self.min_prompt_tokens, self.max_prompt_tokens, "max_prompt_tokens"),
        ):
            if high is not None and high < low:
                raise ValueError(f"{name}: must be >= the minimum {low}, got {high}")
        return self

    def build(self) -> Match:
        return Match(
            class_names=frozenset(self.classes),
            modalities=frozenset(self.modality),
            tenants=frozenset(self.tenant),
            categories=frozenset(self.category),
            min_images=self.min_images,
            max_images=self.max_images,
            min_prompt_tokens=self.min_prompt_tokens,
            max_prompt_tokens=self.max_prompt_tokens,
        )


class SloClassSection(Section):
    match: MatchSection = MatchSection()
    objectives: Annotated[list[ObjectiveSection], Field(min_length=1)]


def slo_table(sections: dict[str, SloClassSection]) -> SloTable:
    """The promises in the file's order: the first class that matches judges a request."""
    return SloTable(
        classes=tuple(
            SloClass(
                name=name,
                match=section.match.build(),
                objectives=tuple(objective.build() for objective in section.objectives),
            )
            for name, section in sections.items()
        )
    )
