"""This file is about the operator's own metrics: what it wants, what there is, how it decides.

`epidote_operator_desired_workers` and `..._ready_workers` are what KEDA or an HPA may scale on.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from epidote_core import metric_names as names
from epidote_core.slo import Slo
from epidote_operator.spec.service_status import ConditionStatus, MultimodalServiceStatus

_SERVICE = ("namespace", "service")
TICK_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OperatorMetrics:
    """All of one operator process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: list[Gauge] = []
        self._desired = self._gauge(names.OPERATOR_DESIRED, "Workers wanted.", "role")
        self._ready = self._gauge(names.OPERATOR_READY, "Workers that serve.", "role")
        self._switching = self._gauge(
            names.OPERATOR_SWITCHING, "Workers on their way into a role.", "role"
        )
        self._workers = self._gauge(names.OPERATOR_WORKERS, "Worker pods.")
        self._gpus = self._gauge(names.OPERATOR_GPUS, "GPUs held.")
        self._budget = self._gauge(names.OPERATOR_GPU_BUDGET, "GPUs that may be held.")
        self._condition = self._gauge(
            names.OPERATOR_CONDITION,
            "1 if the condition holds, 0 if not; absent while that is unknown.",
            "type",
            "reason",
        )
        self._slo = self._gauge(names.OPERATOR_SLO, "What was promised, in seconds.", "target")
        self._attainment = self._gauge(
            names.OPERATOR_ATTAINMENT, "Share of requests that met a target.", "target"
        )
        self.decisions = Counter(
            names.OPERATOR_DECISIONS,
            "Changed decisions.",
            (*_SERVICE, "reason"),
            registry=self.registry,
        )
        self.actions = Counter(
            names.OPERATOR_ACTIONS, "Steps taken.", (*_SERVICE, "verb"), registry=self.registry
        )
        self.failures = Counter(
            names.OPERATOR_TICK_FAILURES, "Ticks that failed.", _SERVICE, registry=self.registry
        )
        self.events_lost = Counter(
            names.OPERATOR_EVENTS_LOST,
            "Events that could not be written.",
            _SERVICE,
            registry=self.registry,
        )
        self.tick_seconds = Histogram(
            names.OPERATOR_TICK_SECONDS, "One tick.", buckets=TICK_S, registry=self.registry
        )
        self.leads = Gauge(
            names.OPERATOR_LEADS, "1 on the operator that acts.", registry=self.registry
        )
        self.stands_by = Gauge(
            names.OPERATOR_STANDS_BY,
            "1 while another release leads where this one watches.",
            registry=self.registry,
        )

    def show(self, namespace: str, service: str, status: MultimodalServiceStatus) -> None:
        """Take over what a status says."""
        where = (namespace, service)
        for role in status.roles:
            name = role.name.role.value
            self._desired.labels(*where, name).set(role.desired)
            self._ready.labels(*where, name).set(role.ready)
            self._switching.labels(*where, name).set(role.switching)
        self._workers.labels(*where).set(status.workers)
        self._gpus.labels(*where).set(status.gpus.used)
        if status.gpus.budget is not None:
            self._budget.labels(*where).set(status.gpus.budget)
        else:
            _forget(self._budget, *where)
        _forget(self._condition, *where)
        for condition in status.conditions:
            if condition.status is not ConditionStatus.UNKNOWN:  # no news are not bad news
                holds = condition.status is ConditionStatus.TRUE
                self._condition.labels(*where, condition.type, condition.reason).set(holds)
        if (seen := status.attainment) is not None:
            for target, percent in (("ttft", seen.ttft_percent), ("tpot", seen.tpot_percent)):
                if percent is not None:
                    self._attainment.labels(*where, target).set(percent / 100)

    def show_promise(self, namespace: str, service: str, slo: Slo) -> None:
        """Take over what the spec promises, for dashboards to draw beside what is."""
        for target, seconds in (("ttft", slo.ttft_s), ("tpot", slo.tpot_s)):
            self._slo.labels(namespace, service, target).set(seconds)

    def forget(self, namespace: str, service: str) -> None:
        """Drop every gauge of a service that is gone, or that another operator looks after now."""
        for gauge in self._gauges:
            _forget(gauge, namespace, service)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        made = Gauge(name, text, (*_SERVICE, *labels), registry=self.registry)
        self._gauges.append(made)
        return made


def _forget(gauge: Gauge, namespace: str, service: str) -> None:
    """Drop a service's series, whatever their other labels say."""
    for family in gauge.collect():
        for sample in family.samples:
            if (sample.labels["namespace"], sample.labels["service"]) == (namespace, service):
                gauge.remove(*sample.labels.values())
