"""This file is about what all sections of a run file share: unknown fields are errors."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from epidote_loadgen.bounds import MOST_POOL, MOST_RPS, MOST_TOKENS


def _no_truth(value: object) -> object:
    """pydantic would take true for 1, and `ttft_ms: true` for a millisecond."""
    if isinstance(value, bool):
        raise ValueError(f"want a number, found {str(value).lower()}")
    return value


NUMBER = BeforeValidator(_no_truth)  # stands with every number of a run file
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False), NUMBER]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False), NUMBER]
Count = Annotated[int, Field(ge=1), NUMBER]
Pool = Annotated[int, Field(ge=1, le=MOST_POOL), NUMBER]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS), NUMBER]
TokensOrNone = Annotated[int, Field(ge=0, le=MOST_TOKENS), NUMBER]
Rps = Annotated[float, Field(ge=0.0, le=MOST_RPS), NUMBER]
Share = Annotated[float, Field(ge=0.0, le=1.0), NUMBER]
Weights = Annotated[dict[str, NotNegative], Field(min_length=1)]


class Section(BaseModel):
    """Frozen; a field that it doesn't know is refused, as a typing error would go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
