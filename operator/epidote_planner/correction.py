"""This file is about correcting the profile by what the workers really took.

Three feedbacks: step times correct the profile's seconds; missed SLOs add a margin of demand for
everything that no model sees (bursts inside a window, uneven routing); and over hours, the spare
workers kept for bursts shrink or grow until about as much is missed as the SLO allows.
"""

from collections.abc import Mapping
from math import exp

from epidote_core.roles import Role, WorkerState
from epidote_planner.capacity import StageFactors
from epidote_planner.experts import ExpertLoad, decode_stretch
from epidote_planner.lane import SPLIT_ROLES
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import CapacityPolicy, PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot, ServiceSample

MARGIN_TIME_S = 300.0  # a steady miss of twice the allowed share adds its margin in so long
MIN_REQUESTS = 20  # fewer say nothing about a 99 % quantile
WORST_MISS = 5.0  # times the allowed share: one bad window must not fill the margin
RESERVE = "reserve"  # factor on the spare workers for bursts
RESERVE_TIME_S = 7200.0  # bursts come a few times a day: learn from several
RESERVE_AIM = 0.5  # of the allowed misses: the rest is for what the reserve cannot prevent
RESERVE_LEAST, RESERVE_MOST = 0.25, 1.5
WORST_BURST = 50.0  # times the aim


def profiled_s(role: Role, sample: ServiceSample, profile: PerformanceProfile) -> float:
    """What the profile expects for the work a sample carried."""
    match role:
        case Role.ENCODE:
            return profile.encode.seconds(sample.images, sample.tokens)
        case Role.PREFILL:
            return profile.prefill.seconds(sample.tokens, sample.context)
        case _:
            return profile.decode.seconds(sample.sequences, sample.context)


def observe_corrections(
    snapshot: ClusterSnapshot, known: Mapping[str, float], passed_s: float, policy: PlannerPolicy
) -> dict[str, float]:
    """Ratio observed / profiled for each role; workers still warm from a cold start don't count."""
    corrections = dict(known)
    share = 1.0 - exp(-passed_s / policy.capacity.correction_s)
    for role in SPLIT_ROLES:
        observed = expected = 0.0
        for worker in snapshot.workers:
            warm = snapshot.now_s - worker.since_s >= policy.damping.cold_start_s
            if worker.role is not role or worker.state is not WorkerState.ROUTABLE or not warm:
                continue
            if worker.sample is not None and worker.sample.seconds > 0.0:
                observed += worker.sample.seconds
                expected += profiled_s(role, worker.sample, policy.profile)
        if expected > 0.0:
            before = corrections.get(role.value, 1.0)
            seen = _bounded(observed / expected, policy.capacity)
            corrections[role.value] = before + share * (seen - before)
    return corrections


def observe_margins(
    snapshot: ClusterSnapshot,
    known: Mapping[str, float],
    passed_s: float,
    policy: PlannerPolicy,
    *,
    shed_ratio: float = 0.0,
) -> dict[str, float]:
    """Demand added because TTFT ("ttft") or TPOT ("tpot") was missed, or saved because not.

    At the lowest the margin takes back the head-room: forecast demand itself is never cut.
    `shed_ratio` of the requests was turned away on the last plan's advice: missed, too, but a
    matter of the reserve alone, for the model has not erred.
    """
    margins = dict(known)
    seen = snapshot.attainment
    if seen is None or seen.num_requests < MIN_REQUESTS:
        return margins
    if snapshot.now_s - seen.measured_at_s > policy.damping.metrics_timeout_s:
        return margins
    allowed = 1.0 - policy.slo.quantile
    least = -policy.capacity.headroom_ratio
    for name, met in (("ttft", seen.ttft_ratio), ("tpot", seen.tpot_ratio)):
        excess = min(WORST_MISS, (1.0 - met) / allowed - 1.0)
        step = policy.capacity.margin_max * excess * passed_s / MARGIN_TIME_S / WORST_MISS
        margin = margins.get(name, 0.0) + step
        margins[name] = min(policy.capacity.margin_max, max(least, margin))
    missed = 1.0 - (1.0 - shed_ratio) * min(seen.ttft_ratio, seen.tpot_ratio)
    excess = min(WORST_BURST, missed / (RESERVE_AIM * allowed)) - 1.0
    reserve = margins.get(RESERVE, 1.0) + excess * passed_s / RESERVE_TIME_S
    margins[RESERVE] = min(RESERVE_MOST, max(RESERVE_LEAST, reserve))
    return margins


def demand_margin(margins: Mapping[str, float]) -> float:
    """The larger of the two promises' margins."""
    return max(margins.get("ttft", 0.0), margins.get("tpot", 0.0))


def stage_factors(corrections: Mapping[str, float], experts: ExpertLoad | None) -> StageFactors:
    """Corrections as factors.

    Observed decode steps already contain the skew; it counts by itself only until they do.
    """
    decode = corrections.get(Role.DECODE.value)
    if decode is None:
        decode = decode_stretch(experts.imbalance, experts.expert_time_ratio) if experts else 1.0
    return StageFactors(
        encode=corrections.get(Role.ENCODE.value, 1.0),
        prefill=corrections.get(Role.PREFILL.value, 1.0),
        decode=decode,
    )


def _bounded(ratio: float, policy: CapacityPolicy) -> float:
    return min(policy.correction_max, max(policy.correction_min, ratio))
