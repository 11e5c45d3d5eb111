"""This file is about the section on arrivals: open loop, closed loop, or a trace."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.rate import Rate, constant, diurnal, ramp, steps
from epidote_loadgen.arrivals.rate_file import read_rate_file
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.arrivals.spacing import Even, Gamma, Poisson, Spacing
from epidote_loadgen.bounds import MOST_RPS, MOST_USERS
from epidote_loadgen.config.section import (
    NUMBER,
    Count,
    NotNegative,
    Positive,
    Rps,
    Section,
    Weights,
)
from epidote_loadgen.traces.reading import TraceFormat
from epidote_loadgen.traces.replay import Replay
from epidote_loadgen.traces.trace_window import Trace


class Ramp(Section):
    from_rps: Rps
    to_rps: Rps
    over_s: Positive


class Step(Section):
    at_s: NotNegative
    rps: Rps


class Diurnal(Section):
    mean_rps: Annotated[float, Field(gt=0.0, le=MOST_RPS), NUMBER]
    peak_ratio: Annotated[float, Field(ge=1.0, le=2.0), NUMBER] = 1.5
    period_s: Positive = 86_400.0
    num_periods: Annotated[int, Field(ge=1, le=366), NUMBER] = 1


class RateFile(Section):
    path: Path
    stepwise: bool = False


class RateSection(Section):
    """Exactly one form."""

    constant_rps: Annotated[float, Field(gt=0.0, le=MOST_RPS), NUMBER] | None = None
    ramp: Ramp | None = None
    steps: Annotated[list[Step], Field(min_length=1)] | None = None
    diurnal: Diurnal | None = None
    file: RateFile | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return {"constant_rps": value} if is_number else value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = sorted(self.model_fields_set)
        if len(given) != 1:
            raise ValueError(
                "want one of constant_rps, ramp, steps, diurnal, file; "
                f"found {', '.join(given) or 'none'}"
            )
        return self

    def build(self, base: Path) -> Rate:
        """Raises ValueError: an unreadable rate file, or points out of order."""
        if self.constant_rps is not None:
            return constant(self.constant_rps)
        if self.ramp is not None:
            return ramp(self.ramp.from_rps, self.ramp.to_rps, over_s=self.ramp.over_s)
        if self.steps is not None:
            return steps([(step.at_s, step.rps) for step in self.steps])
        if self.diurnal is not None:
            d = self.diurnal
            return diurnal(
                d.mean_rps,
                peak_ratio=d.peak_ratio,
                period_s=d.period_s,
                num_periods=d.num_periods,
            )
        assert self.file is not None
        return read_rate_file(base / self.file.path, stepwise=self.file.stepwise)


class StreamSection(Section):
    """One arrival process. `classes` by weight; empty: all classes by their own weights."""

    rate: RateSection
    spacing: Literal["poisson", "even", "gamma"] = "poisson"
    cv: Positive | None = None  # of gamma gaps: standard deviation over mean
    duration_s: Positive | None = None
    num_requests: Count | None = None
    start_s: NotNegative = 0.0
    classes: Weights | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.duration_s is None and self.num_requests is None:
            raise ValueError("want duration_s or num_requests, found neither")
        if (self.spacing == "gamma") != (self.cv is not None):
            raise ValueError("cv belongs to spacing gamma, and gamma wants it")
        return self

    def stream(self, weights: dict[str, float], base: Path) -> ArrivalStream:
        return ArrivalStream(
            weights=self.classes or weights,
            rate=self.rate.build(base),
            spacing=self._spacing(),
            duration_s=math.inf if self.duration_s is None else self.duration_s,
            num_requests=self.num_requests,
            start_s=self.start_s,
        )

    def _spacing(self) -> Spacing:
        match self.spacing:
            case "even":
                return Even()
            case "gamma":
                return Gamma(self.cv or 1.0)
            case _:
                return Poisson()


class OpenSection(StreamSection):
    """One stream, written without a list."""

    kind: Literal["open"] = "open"

    def build(self, weights: dict[str, float], *, seed: int, base: Path) -> OpenLoop:
        return OpenLoop(streams=(self.stream(weights, base),), seed=seed)


class StreamsSection(Section):
    """Several streams at once, merged by time."""

    kind: Literal["streams"]
    streams: Annotated[list[StreamSection], Field(min_length=1)]

    def build(self, weights: dict[str, float], *, seed: int, base: Path) -> OpenLoop:
        return OpenLoop(streams=tuple(s.stream(weights, base) for s in self.streams), seed=seed)


class ClosedSection(Section):
    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1, le=MOST_USERS), NUMBER]
    think_s: NotNegative = 0.0
    ramp_s: NotNegative = 0.0
    duration_s: Positive | None = None
    num_requests: Count | None = None
    classes: Weights | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.duration_s is None and self.num_requests is None:
            raise ValueError("want duration_s or num_requests, found neither")
        return self

    def build(self, weights: dict[str, float], *, seed: int, base: Path) -> ClosedLoop:
        return ClosedLoop(
            weights=self.classes or weights,
            num_users=self.users,
            think_s=self.think_s,
            ramp_s=self.ramp_s,
            duration_s=math.inf if self.duration_s is None else self.duration_s,
            num_requests=self.num_requests,
            seed=seed,
        )


class TraceSection(Section):
    """A trace's times. With a class of kind trace its sizes too."""

    kind: Literal["trace"]
    path: Path
    format: TraceFormat = TraceFormat.AUTO
    speed: Positive = 1.0
    start_s: NotNegative = 0.0
    end_s: Positive | None = None
    max_requests: Count | None = None
    max_bad_rows: Annotated[int, Field(ge=0), NUMBER] = 0

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s: must be > start_s ({self.start_s:g}), got {self.end_s:g}")
        return self

    def trace(self, base: Path) -> Trace:
        return Trace(
            path=base / self.path,
            trace_format=self.format,
            start_s=self.start_s,
            end_s=self.end_s,
            max_rows=self.max_requests,
            max_bad_rows=self.max_bad_rows,
        )

    def build(self, trace: Trace, class_name: str) -> Replay:
        return Replay(trace=trace, class_name=class_name, speed=self.speed)


def _kind(value: Any) -> str:
    kind = value.get("kind", "open") if isinstance(value, dict) else getattr(value, "kind", "open")
    return str(kind)


ArrivalsSection = Annotated[
    Annotated[OpenSection, Tag("open")]
    | Annotated[StreamsSection, Tag("streams")]
    | Annotated[ClosedSection, Tag("closed")]
    | Annotated[TraceSection, Tag("trace")],
    Discriminator(
        _kind,
        custom_error_type="arrivals_kind",
        custom_error_message="kind: want open, streams, closed or trace",
    ),
]
