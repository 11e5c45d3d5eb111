"""This file is about whole numbers in a run file: fixed, or drawn from a distribution."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from epidote_loadgen.config.section import Positive, Section, Tokens, TokensOrNone
from epidote_loadgen.workload.distributions import Choice, Distribution, Fixed, LogNormal, Uniform


class LogNormalSection(Section):
    median: Positive
    sigma: Positive
    low: TokensOrNone = 1
    high: Tokens


class DistributionSection(Section):
    """A plain number, or exactly one form: uniform [low, high], lognormal, values by weight."""

    fixed: TokensOrNone | None = None
    uniform: tuple[TokensOrNone, TokensOrNone] | None = None
    lognormal: LogNormalSection | None = None
    values: Annotated[dict[TokensOrNone, Positive], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return {"fixed": value} if isinstance(value, (int, float, str)) else value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = sorted(self.model_fields_set)
        if len(given) != 1:
            raise ValueError(
                "want a number, or one of uniform, lognormal, values; "
                f"found {', '.join(given) or 'none'}"
            )
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"uniform: want [low, high], found {list(self.uniform)}")
        return self

    def build(self) -> Distribution:
        if self.uniform is not None:
            return Uniform(*self.uniform)
        if self.lognormal is not None:
            return LogNormal(**self.lognormal.model_dump())
        if self.values is not None:
            return Choice(dict(self.values))
        return Fixed(self.fixed or 0)
