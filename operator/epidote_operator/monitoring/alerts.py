"""This file is about what must wake somebody, and what can wait until morning: Prometheus rules."""

from typing import Any

from epidote_core import metric_names as names

Rule = dict[str, Any]
BY = "namespace, service"


# Reasons of Ready that say that the spec is not followed; what served before serves on.
SPEC_ASIDE = "InvalidSpec|NameTaken|SecretChanged"


def _condition(kind: str, value: int, more: str = "", by: str = BY) -> str:
    return f'max by ({by}) ({names.OPERATOR_CONDITION}{{type="{kind}"{more}}}) == {value}'


def _not_serving() -> str:
    """Not Ready for another reason than its spec, or a role that shall have workers has none."""
    bare = f"count by ({BY}) ({names.OPERATOR_DESIRED} > 0 and {names.OPERATOR_READY} == 0)"
    other = _condition("Ready", 0, f', reason!~"{SPEC_ASIDE}"')
    return f"({other}) or (({_condition('Ready', 0)}) and on ({BY}) ({bare}))"


def _alert(name: str, expr: str, lasting: str, severity: str, summary: str, action: str) -> Rule:
    return {
        "alert": name,
        "expr": expr,
        "for": lasting,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": action},
    }


def rules() -> dict[str, Any]:
    """The `spec` of a PrometheusRule."""
    service = "{{ $labels.namespace }}/{{ $labels.service }}"
    return {
        "groups": [
            {
                "name": "epidote-services",
                "rules": [
                    _alert(
                        "EpidoteServiceNotReady",
                        _not_serving(),
                        "5m",
                        "critical",
                        f"{service} does not serve: requests fail.",
                        "`kubectl describe mms` has the reason of the condition Ready: a stage "
                        "without a routable worker, or gateways that can't be reached.",
                    ),
                    _alert(
                        "EpidoteSpecNotFollowed",
                        _condition("Ready", 0, f', reason=~"{SPEC_ASIDE}"', f"{BY}, reason"),
                        "5m",
                        "warning",
                        f"{service} serves its last good spec, not the present one: "
                        "{{ $labels.reason }}.",
                        "What served before serves on, and changes of the spec have no effect. The "
                        "condition Ready names the field (InvalidSpec), the object that is "
                        "somebody else's (NameTaken), or the Secret (SecretChanged).",
                    ),
                    _alert(
                        "EpidoteSloMissed",
                        _condition("SloMet", 0),
                        "15m",
                        "warning",
                        f"{service} misses its latency promise.",
                        "The last decision in the status says what binds: budget, bounds, metrics.",
                    ),
                    _alert(
                        "EpidoteScalingLimited",
                        f"{_condition('ScalingLimited', 1)} "
                        f"and on ({BY}) {_condition('SloMet', 0)}",
                        "15m",
                        "warning",
                        f"{service} needs more workers than it may have, and misses its promise.",
                        "Raise pool.gpuBudget or pool.maxWorkers, or accept the latency.",
                    ),
                    _alert(
                        "EpidoteScalingInactive",
                        _condition("ScalingActive", 0),
                        "10m",
                        "warning",
                        f"{service} is held as it is: no fresh metrics, or scaling is off.",
                        "The condition ScalingActive has the reason.",
                    ),
                    _alert(
                        "EpidoteWorkersMissing",
                        f"sum by ({BY}) ({names.OPERATOR_DESIRED}) > sum by ({BY}) "
                        f"({names.OPERATOR_READY})",
                        "20m",
                        "warning",
                        f"{service} has had fewer workers than it wants for 20 minutes.",
                        "Look for pending pods: nodes, quota, image or weights.",
                    ),
                    _alert(
                        "EpidoteRoleSwitchesRolledBack",
                        f"sum by ({BY}) (increase({names.EPIDOTE_ROLE_SWITCHES}_total"
                        '{outcome="rolled_back"}[30m])) > 3',
                        "0m",
                        "warning",
                        f"{service} keeps rolling role switches back.",
                        "Drains take longer than scaling.drainDeadlineSeconds, or weights fail.",
                    ),
                    _alert(
                        "EpidoteCacheWrongHits",
                        f"sum by ({BY}, category) (increase({names.EPIDOTE_CACHE_WRONG_HITS}"
                        "_total[1h])) > 5",
                        "0m",
                        "warning",
                        f"{service} served wrong cached answers in {{{{ $labels.category }}}}.",
                        "Raise the category's threshold in the CachePolicy, or change its epoch.",
                    ),
                ],
            },
            {
                "name": "epidote-operator",
                "rules": [
                    _alert(
                        "EpidoteOperatorNoLeader",
                        f"(sum({names.OPERATOR_LEADS}) or vector(0)) < 1",
                        "2m",
                        "critical",
                        "No operator acts: fleets serve on, but nothing is scaled or repaired.",
                        "Look at the operator's Deployment and its Lease.",
                    ),
                    _alert(
                        "EpidoteOperatorTwoLeaders",
                        f"count by ({BY}) ({names.OPERATOR_WORKERS}) > 1",
                        "1m",
                        "critical",
                        f"Two operators act on {service} at once.",
                        "Two installations watch its namespace, and one may not see the other's "
                        "Lease (rbac.otherReleases, leaderElection): remove one.",
                    ),
                    _alert(
                        "EpidoteOperatorStandsBy",
                        f"max({names.OPERATOR_STANDS_BY}) > 0",
                        "5m",
                        "warning",
                        "An operator stands by, since another release leads where it watches.",
                        "Its log and /readyz name the other one's Lease: uninstall one, or give "
                        "them different watchNamespaces.",
                    ),
                    _alert(
                        "EpidoteTicksFail",
                        f"sum by ({BY}) (increase({names.OPERATOR_TICK_FAILURES}_total[10m])) > 5",
                        "0m",
                        "warning",
                        f"The operator keeps failing on {service}.",
                        "The condition AbleToScale says FailedTick and why, unless the status "
                        "could not be written; the operator's log has all of it.",
                    ),
                ],
            },
        ]
    }
