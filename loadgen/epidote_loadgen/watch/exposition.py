"""This file is about a metrics page in Prometheus' text form, read as a look at the fleet."""

from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from epidote_core import metric_names as names
from epidote_core.roles import Role
from epidote_loadgen.watch.look import Look, LookFailed

Sample = tuple[str, Mapping[str, str], float]  # metric, labels, value
WANTED = (
    names.EPIDOTE_WORKERS,
    names.EPIDOTE_WORKER_WAITING,
    names.EPIDOTE_WORKER_RUNNING,
    f"{names.EPIDOTE_ROLE_SWITCHES}_total",
    names.OPERATOR_DESIRED,
    f"{names.OPERATOR_DECISIONS}_total",
    names.VLLM_NUM_REQUESTS_RUNNING,
    names.VLLM_NUM_REQUESTS_WAITING,
)


def parse_page(text: str) -> list[Sample]:
    """The samples of a page that we know.

    Raises:
        LookFailed: it is no page of that form.
    """
    try:
        return [
            (sample.name, sample.labels, float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in WANTED
        ]
    except (ValueError, IndexError, KeyError) as error:
        raise LookFailed(f"no metrics in Prometheus' text form: {error}") from error


def look_of(samples: Iterable[Sample]) -> Look:
    """The fleet. Gateways report the same workers, so the largest value of a series counts.

    A server without roles (plain vLLM) shows as one role `all` with its queues.
    """
    workers: dict[str, dict[str, int]] = {}
    by_role: dict[str, dict[str, float]] = {"waiting": {}, "running": {}}
    switches: dict[tuple[str, str, str], float] = {}
    desired: dict[str, int] = {}
    decided: dict[str, float] = {}
    plain: dict[str, float] = {}
    for name, labels, value in samples:
        role = labels.get("role", "")
        if name == names.EPIDOTE_WORKERS:
            states = workers.setdefault(role, {})
            state = labels.get("state", "")
            states[state] = max(states.get(state, 0), round(value))
        elif name in (names.EPIDOTE_WORKER_WAITING, names.EPIDOTE_WORKER_RUNNING):
            kind = "waiting" if name == names.EPIDOTE_WORKER_WAITING else "running"
            by_role[kind][role] = max(by_role[kind].get(role, 0.0), value)
        elif name == f"{names.EPIDOTE_ROLE_SWITCHES}_total":
            key = (
                labels.get("from_role", ""),
                labels.get("to_role", ""),
                labels.get("outcome", ""),
            )
            switches[key] = max(switches.get(key, 0.0), value)
        elif name == names.OPERATOR_DESIRED:
            desired[role] = max(desired.get(role, 0), round(value))
        elif name == f"{names.OPERATOR_DECISIONS}_total":
            reason = labels.get("reason", "")
            decided[reason] = max(decided.get(reason, 0.0), value)
        elif name == names.VLLM_NUM_REQUESTS_RUNNING:
            plain["running"] = plain.get("running", 0.0) + value
        elif name == names.VLLM_NUM_REQUESTS_WAITING:
            plain["waiting"] = plain.get("waiting", 0.0) + value
    if not workers:
        for kind, total in plain.items():
            by_role[kind][Role.ALL.value] = total
    kept = {
        role: {state: count for state, count in states.items() if count}
        for role, states in workers.items()
    }
    return Look(
        workers={role: states for role, states in kept.items() if states},
        waiting=by_role["waiting"],
        running=by_role["running"],
        desired=desired,
        switches=switches,
        decided=decided,
    )
