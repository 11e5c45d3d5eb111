"""This file is about how the fleet may follow its demand: who decides, how fast, how far."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from epidote_operator.spec.field_model import DAY_SECONDS, Percent, SpecModel, cel_rules


class ScalingMode(StrEnum):
    """Whether decisions are carried out."""

    AUTO = "Auto"
    ADVISORY = "Advisory"
    OFF = "Off"


class ScalingOwner(StrEnum):
    """Who decides how many workers there are. Roles are the operator's in either case."""

    OPERATOR = "Operator"
    EXTERNAL = "External"


Seconds = Annotated[int, Field(ge=0, le=DAY_SECONDS)]
PositiveSeconds = Annotated[int, Field(ge=1, le=DAY_SECONDS)]


class ForecastSpec(SpecModel):
    """How arrivals become a forecast."""

    smoothing_seconds: PositiveSeconds = 30
    """Time constant of the level: how much history a rate is averaged over."""
    trend_seconds: PositiveSeconds = 300
    """Time constant of the slope."""
    season_seconds: Annotated[int, Field(ge=0, le=14 * DAY_SECONDS)] = DAY_SECONDS
    """Length of the recurring pattern; 0 switches it off."""
    burst_sigmas_percent: Annotated[int, Field(ge=0, le=1000)] = 150
    """Spare workers, in hundredths of a standard deviation of the forecast's error."""
    headroom_percent: Percent = 10
    """Added to the demand before the fleet is sized."""


class PressureSpec(SpecModel):
    """When the gateways are asked to relax their cache or to shed, before workers can help."""

    model_config = cel_rules(
        (
            "self.leaveLoadPercent < self.enterLoadPercent",
            "must be less than enterLoadPercent",
            ".leaveLoadPercent",
        )
    )

    enter_load_percent: Annotated[int, Field(ge=1, le=1000)] = 100
    """Needed over routable workers above which pressure builds."""
    leave_load_percent: Annotated[int, Field(ge=0, le=1000)] = 80
    """The same ratio below which pressure ends. Less than `enterLoadPercent`."""
    hold_seconds: Seconds = 30
    """How long the load must last."""
    max_shed_percent: Percent = 0
    """Most of the requests that may be refused with 429 under pressure. 0: none."""


class ScalingSpec(SpecModel):
    """Who decides, how fast the fleet follows, and when it stays as it is."""

    model_config = cel_rules(
        (
            "self.metricsTimeoutSeconds >= self.tickSeconds",
            "must be at least tickSeconds",
            ".metricsTimeoutSeconds",
        )
    )

    mode: ScalingMode = ScalingMode.AUTO
    """Auto decides and acts. Advisory decides, shows the decision in the status and does nothing.
    Off keeps the fleet as it is and decides nothing."""
    owner: ScalingOwner = ScalingOwner.OPERATOR
    """Operator: the number of workers follows the SLO. External: it is `pool.workers`, moved
    through `/scale` by a HorizontalPodAutoscaler, KEDA or a person; the operator still assigns the
    roles."""
    tick_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Time between two decisions."""
    shrink_window_seconds: Seconds = 300
    """The pool shrinks to the largest need of this window. Growth is immediate."""
    dwell_seconds: Seconds | None = None
    """A worker keeps its role at least this long. Default: ten times what the profile says that a
    switch takes."""
    switch_cooldown_seconds: Seconds = 20
    """Time between two role switches into opposite directions."""
    drain_deadline_seconds: PositiveSeconds = 120
    """A worker that switches or leaves finishes its requests within this time. After it, a switch
    is rolled back, and a leaving worker hands its requests over."""
    start_deadline_seconds: PositiveSeconds = 900
    """A worker that starts longer than this is given up; its GPUs return to the budget."""
    start_backoff_seconds: Seconds = 300
    """No new workers for so long after one was given up."""
    metrics_timeout_seconds: PositiveSeconds = 60
    """Signals older than this are stale: the role they describe is held."""
    cold_start_seconds: Seconds = 60
    """Measurements of workers younger than this don't correct the performance profile."""
    forecast: ForecastSpec = ForecastSpec()
    """How arrivals become a forecast."""
    pressure: PressureSpec = PressureSpec()
    """When the gateways are asked to help."""
