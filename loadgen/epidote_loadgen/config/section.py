"""This file is about what all sections of a run file share: unknown fields are errors."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from epidote_loadgen.bounds import MOST_POOL, MOST_RPS, MOST_TOKENS

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Pool = Annotated[int, Field(ge=1, le=MOST_POOL)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
TokensOrNone = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Rps = Annotated[float, Field(ge=0.0, le=MOST_RPS)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weights = Annotated[dict[str, NotNegative], Field(min_length=1)]


class Section(BaseModel):
    """Frozen; a field that it doesn't know is refused, as a typing error would go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
