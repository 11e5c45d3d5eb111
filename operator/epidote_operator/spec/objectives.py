"""This file is about the latency promise of a service, in the units people write it in."""

from typing import Annotated

from pydantic import Field

from epidote_core.slo import Slo
from epidote_operator.spec.field_model import SpecModel, list_map
from epidote_operator.spec.model_source import ServedModality

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]
AttainmentPercent = Annotated[int, Field(ge=1, le=99)]


class ModalitySlo(SpecModel):
    """Targets for requests of one modality, in place of the general ones."""

    modality: ServedModality
    """The kind of request; one with several media is named by its heaviest."""
    ttft_milliseconds: Milliseconds
    """Time to first token, counted from the request's arrival."""
    tpot_milliseconds: Milliseconds
    """Time per output token after the first, the mean of a request."""


class SloSpec(SpecModel):
    """What the fleet is sized for: so many percent of the requests meet both targets."""

    ttft_milliseconds: Milliseconds
    """Time to first token, counted from the request's arrival."""
    tpot_milliseconds: Milliseconds
    """Time per output token after the first, the mean of a request."""
    attainment_percent: AttainmentPercent = 99
    """Share of requests that must meet both targets."""
    per_modality: Annotated[
        tuple[ModalitySlo, ...],
        Field(
            max_length=4,
            json_schema_extra=list_map("modality"),
        ),
    ] = ()
    """Other targets for some modalities: an image may take longer than a line of text."""

    def slo(self, modality: ServedModality | None = None) -> Slo:
        """The targets of `modality`, or the general ones, in seconds."""
        own = next((item for item in self.per_modality if item.modality is modality), self)
        return Slo(
            ttft_s=own.ttft_milliseconds / 1000,
            tpot_s=own.tpot_milliseconds / 1000,
            quantile=self.attainment_percent / 100,
        )
