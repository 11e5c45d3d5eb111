"""This file is about the policies that the command line names, each at its published defaults.

Experiments tune them (`search.py`); a single run from the command line shows how one behaves.
"""

from collections.abc import Callable

from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import Layout
from epidote_loadgen.simulate.policy import Policy, nothing, planner
from epidote_loadgen.simulate.rivals.dynamo import DynamoRule, dynamo_load, dynamo_throughput
from epidote_loadgen.simulate.rivals.elasticmm import ElasticRules, elastic_rules
from epidote_loadgen.simulate.rivals.epdserve import LongestQueue, longest_queue
from epidote_loadgen.simulate.rivals.hpa import HpaRule, Metric, hpa
from epidote_loadgen.simulate.rivals.keda import TokenVelocity, token_velocity
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import Bounds, PlannerPolicy

Make = Callable[[PerformanceProfile, Slo, float], Policy]

HALF = 0.5  # of a worker's capacity: room for bursts in rules that know no start-up time
DECODE_TOKENS_PER_S = 1000.0


def _epidote(profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    """A load without media needs no encoder; the first image waits for a switch."""
    roles = {**dict.fromkeys(SPLIT_ROLES, Bounds()), Role.ENCODE: Bounds(least=0)}
    return planner(PlannerPolicy(profile=profile, slo=slo, tick_s=tick_s, roles=roles))


def _hpa(profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    busy = HpaRule(metric=Metric.BUSY, target=HALF)
    return hpa(
        {
            Lane(DEFAULT_GROUP, Role.ENCODE): busy,
            Lane(DEFAULT_GROUP, Role.PREFILL): busy,
            Lane(DEFAULT_GROUP, Role.DECODE): HpaRule(metric=Metric.KV, target=HALF),
        }
    )


def _hpa_coupled(profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    return hpa({Lane(DEFAULT_GROUP, Role.ALL): HpaRule(metric=Metric.CONCURRENCY, target=4.0)})


def _token_velocity(profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    return token_velocity(
        TokenVelocity(
            encode=HALF / max(1e-9, profile.encode.per_token_s),
            prefill=HALF / max(1e-9, profile.prefill.per_token_s),
            decode=DECODE_TOKENS_PER_S,
        )
    )


NAMED: dict[str, Make] = {
    "epidote": _epidote,
    "static": lambda profile, slo, tick_s: nothing,
    "hpa": _hpa,
    "hpa-coupled": _hpa_coupled,
    "token-velocity": _token_velocity,
    "dynamo-throughput": lambda profile, slo, tick_s: dynamo_throughput(
        DynamoRule(profile=profile, slo=slo, target_utilization=HALF)
    ),
    "dynamo-load": lambda profile, slo, tick_s: dynamo_load(DynamoRule(profile=profile, slo=slo)),
    "longest-queue": lambda profile, slo, tick_s: longest_queue(LongestQueue()),
    "elasticmm": lambda profile, slo, tick_s: elastic_rules(ElasticRules(profile=profile)),
}
POLICIES = tuple(NAMED)


def named_policy(name: str, profile: PerformanceProfile, slo: Slo, tick_s: float) -> Policy:
    """One of `POLICIES`, on a fleet of the layout that `layout_of` tells."""
    return NAMED[name](profile, slo, tick_s)


def layout_of(name: str) -> Layout:
    return Layout.COUPLED if name == "hpa-coupled" else Layout.SPLIT
