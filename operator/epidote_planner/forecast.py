"""This file is about following one number over time: level, slope, season and forecast error."""

from dataclasses import dataclass, replace
from math import exp, sqrt

from epidote_planner.policy import DemandPolicy

UNKNOWN = -1.0  # a season's bucket that no tick has filled yet
SEASON_SHARE = 0.05  # of a tick's level that enters its bucket once that is known
MAX_GROWTH = 2.0  # a forecast leaves the level by at most this factor, upwards or downwards
NUM_PROMISES = 16  # forecasts kept at a time until the future can judge them


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is remembered of a number. Plain values: it lives in a resource's status.

    `since_s`: the first observation; the level is the plain mean until the series is as old as its
    time constant, or the first of all observations would count for longest (None: long ago).
    `promises` are (due time, forecast) pairs; `error2` is the mean square of how far the truth
    came out above them. Forecasts that were too high cost money, not latency, and don't count.
    """

    at_s: float
    level: float
    slope: float = 0.0  # per second
    error2: float = 0.0
    miss2: float = 0.0
    promises: tuple[tuple[float, float], ...] = ()
    season: tuple[float, ...] = ()
    since_s: float | None = None

    @property
    def error(self) -> float:
        """Typical shortfall of a forecast."""
        return sqrt(self.error2)

    def moved(self, step_s: float, now_s: float) -> "Series":
        """The series on a clock that jumped by `step_s` to `now_s`; never ahead of it."""
        back_s = min(step_s, now_s - self.at_s)
        return replace(
            self,
            at_s=self.at_s + back_s,
            since_s=None if self.since_s is None else self.since_s + back_s,
            promises=tuple((due_s + back_s, value) for due_s, value in self.promises),
        )


def advance(
    series: Series | None,
    value: float,
    *,
    at_s: float,
    ahead_s: float,
    policy: DemandPolicy,
    seasonal: bool = False,
) -> Series:
    """The series after one more observation; `ahead_s` is the distance that it will be asked for.

    An observation that is not newer than the last one changes nothing.
    """
    buckets = policy.season_buckets if seasonal and policy.season_s > 0.0 else 0
    if series is None:
        return Series(at_s=at_s, level=value, season=(UNKNOWN,) * buckets, since_s=at_s)
    passed = at_s - series.at_s
    if passed <= 0.0:
        return series
    near = 1.0 - exp(-passed / policy.smoothing_s)
    if series.since_s is not None:  # the n-th observation counts for 1/n at least
        near = max(near, passed / (at_s - series.since_s + passed))
    far = 1.0 - exp(-passed / policy.trend_s)
    level = series.level + near * (value - series.level)
    slope = series.slope + far * ((level - series.level) / passed - series.slope)
    error2, miss2, promises = _settle(series, value, at_s, passed, policy)
    season = _remember(series.season, level, at_s, policy) if buckets else ()
    moved = replace(
        series,
        at_s=at_s,
        level=level,
        slope=slope,
        error2=error2,
        miss2=miss2,
        promises=promises,
        season=season,
    )
    if ahead_s <= 0.0:
        return moved
    return replace(moved, promises=_promise(moved, ahead_s, policy))


def forecast(series: Series, *, ahead_s: float, policy: DemandPolicy) -> float:
    """The expected value `ahead_s` from now, never negative.

    The season speaks where it has seen both now and then; otherwise the slope does.
    """
    now, then = (_bucket(series, series.at_s + after, policy) for after in (0.0, ahead_s))
    if now is not None and then is not None and now > 0.0:
        growth = then / now
    elif series.level > 0.0:
        growth = 1.0 + series.slope * ahead_s / series.level
    else:
        growth = 1.0
    return max(0.0, series.level * min(MAX_GROWTH, max(1.0 / MAX_GROWTH, growth)))


def _settle(
    series: Series, value: float, at_s: float, passed: float, policy: DemandPolicy
) -> tuple[float, float, tuple[tuple[float, float], ...]]:
    """Compare the promises that fell due with the truth: error2, miss2, and those still open."""
    due = [promised for when, promised in series.promises if when <= at_s]
    kept = tuple(pair for pair in series.promises if pair[0] > at_s)
    if not due:
        return series.error2, series.miss2, kept
    share = 1.0 - exp(-passed / policy.error_s)
    over = value - due[-1]
    error2 = series.error2 + share * (max(0.0, over) ** 2 - series.error2)
    return error2, series.miss2 + share * (over * over - series.miss2), kept


def _promise(
    series: Series, ahead_s: float, policy: DemandPolicy
) -> tuple[tuple[float, float], ...]:
    """Add today's forecast, unless the last one is too recent to be worth a place."""
    due = series.at_s + ahead_s
    if series.promises and due - series.promises[-1][0] < ahead_s / NUM_PROMISES:
        return series.promises
    return (*series.promises, (due, forecast(series, ahead_s=ahead_s, policy=policy)))


def _index(at_s: float, policy: DemandPolicy) -> int:
    return int(at_s % policy.season_s / policy.season_s * policy.season_buckets)


def _bucket(series: Series, at_s: float, policy: DemandPolicy) -> float | None:
    if len(series.season) != policy.season_buckets or not series.season:
        return None
    value = series.season[_index(at_s, policy)]
    return None if value == UNKNOWN else value


def _remember(
    season: tuple[float, ...], level: float, at_s: float, policy: DemandPolicy
) -> tuple[float, ...]:
    if len(season) != policy.season_buckets:  # the policy changed: learn anew
        season = (UNKNOWN,) * policy.season_buckets
    index = _index(at_s, policy)
    known = season[index]
    value = level if known == UNKNOWN else known + SEASON_SHARE * (level - known)
    return (*season[:index], value, *season[index + 1 :])
