"""This file is about LoadTest: wait for the service, run the Job once, keep verdict and report.

no Job, service not Ready   Pending, until `waitSeconds` are over: Failed
no Job, service Ready       the Job is made: Running
Job ended, with a verdict   Finished; SloMet is the verdict
Job ended, without one      Failed, with the Job's own words
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.act.objects import apply_all
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import KubeError
from epidote_operator.kube.merge_patch import merge_patch
from epidote_operator.resources.fleet_values import Defaults, owner_reference
from epidote_operator.resources.labels import LOAD_TEST, load_test_labels
from epidote_operator.resources.load_test_job import load_test_objects
from epidote_operator.spec.invalid import InvalidSpec
from epidote_operator.spec.load_test import (
    PLURAL,
    LoadTestPhase,
    LoadTestSpec,
    LoadTestStatus,
    ObjectiveResult,
    Verdict,
)
from epidote_operator.spec.parsing import parse_load_test
from epidote_operator.status.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Finding,
    renewed,
    timestamp,
    unix_time,
)
from epidote_operator.status.persistence import dumped

logger = logging.getLogger(__name__)

MAX_REPORT_BYTES = 900_000  # a ConfigMap holds 1 MiB
ENDED = (LoadTestPhase.FINISHED, LoadTestPhase.FAILED)
# The load generator's words; any other one leaves it open.
VERDICTS = {"PASS": Verdict.PASS, "FAIL": Verdict.FAIL}


@dataclass(frozen=True, kw_only=True)
class LoadTests:
    """Runs LoadTests. `service_of` and `job_of` read caches."""

    api: KubeApi
    service_of: Callable[[str, str], Manifest | None]
    job_of: Callable[[str, str], Manifest | None]
    defaults: Defaults

    async def reconcile(self, resource: Manifest, now_s: float) -> LoadTestStatus:
        """One look at one LoadTest; at most one patch of its status."""
        before = LoadTestStatus.model_validate(resource.get("status") or {})
        if before.phase in ENDED:
            return before
        try:
            spec = parse_load_test(resource["spec"])
        except InvalidSpec as error:
            status = _failed(before, "InvalidSpec", str(error), now_s)
        else:
            status = await self._advance(resource, spec, before, now_s)
        status = status.model_copy(
            update={"observed_generation": resource["metadata"].get("generation")}
        )
        await self._write(resource, status)
        return status

    async def _advance(
        self, resource: Manifest, spec: LoadTestSpec, before: LoadTestStatus, now_s: float
    ) -> LoadTestStatus:
        metadata = resource["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        job = self.job_of(namespace, name)
        if job is not None:
            return await self._judge(resource, job, before, now_s)
        if before.phase is LoadTestPhase.RUNNING and before.job_name:
            return before  # made a moment ago: the cache lags
        url, why = self._target(namespace, spec)
        if url is None:
            waited_s = now_s - unix_time(metadata["creationTimestamp"])
            if waited_s > spec.wait_seconds:
                return _failed(before, "ServiceNotReady", f"{why} within {waited_s:.0f} s", now_s)
            return before.model_copy(
                update={
                    "phase": LoadTestPhase.PENDING,
                    "summary": why,
                    "conditions": _conditions(
                        before, (FALSE, "Waiting", why), (UNKNOWN, "Waiting", why), now_s
                    ),
                }
            )
        objects = load_test_objects(
            name, namespace, metadata["uid"], spec, url=url, defaults=self.defaults
        )
        await apply_all(self.api, objects)
        running = (UNKNOWN, "Running", "the run has not ended")
        return before.model_copy(
            update={
                "phase": LoadTestPhase.RUNNING,
                "job_name": objects[-1]["metadata"]["name"],
                "started_at": timestamp(now_s),
                "summary": f"runs against {url}",
                "conditions": _conditions(
                    before, (FALSE, "Running", "the run has not ended"), running, now_s
                ),
            }
        )

    def _target(self, namespace: str, spec: LoadTestSpec) -> tuple[str | None, str]:
        """Whom to test, or why not yet."""
        if spec.target.url is not None:
            return spec.target.url.rstrip("/"), ""
        name = spec.target.service_name or ""
        service = self.service_of(namespace, name)
        if service is None:
            return None, f"there is no MultimodalService {name!r}"
        status = service.get("status") or {}
        ready = any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in status.get("conditions") or ()
        )
        url = str(status.get("url") or "").removesuffix("/v1")
        if not ready or not url:
            return None, f"MultimodalService {name!r} is not Ready"
        return url, ""

    async def _judge(
        self, resource: Manifest, job: Manifest, before: LoadTestStatus, now_s: float
    ) -> LoadTestStatus:
        ended = [
            condition
            for condition in job.get("status", {}).get("conditions") or ()
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        ]
        if not ended:
            return before.model_copy(
                update={"phase": LoadTestPhase.RUNNING, "job_name": job["metadata"]["name"]}
            )
        pod = await self._pod_of(resource)
        told = _termination_message(pod)
        report = await self._keep_report(resource, pod) if pod is not None else ""
        try:
            verdict = json.loads(told)
            outcome = VERDICTS.get(verdict["outcome"], Verdict.INCONCLUSIVE)
            reason, objectives = str(verdict["reason"]), _objectives(verdict["objectives"])
        except (ValueError, KeyError, TypeError):
            said = told or ended[0].get("message") or "it ended without a verdict"
            failed = _failed(before, "NoVerdict", said[:1000], now_s)
            return failed.model_copy(update={"report_config_map": report})
        slo = TRUE if outcome is Verdict.PASS else FALSE
        if outcome is Verdict.INCONCLUSIVE:
            slo = UNKNOWN
        return before.model_copy(
            update={
                "phase": LoadTestPhase.FINISHED,
                "verdict": outcome,
                "summary": reason,
                "objectives": objectives,
                "job_name": job["metadata"]["name"],
                "report_config_map": report,
                "finished_at": timestamp(now_s),
                "conditions": _conditions(
                    before, (TRUE, "Finished", reason), (slo, outcome.value, reason), now_s
                ),
            }
        )

    async def _pod_of(self, resource: Manifest) -> Manifest | None:
        metadata = resource["metadata"]
        listed = await self.api.request(
            "GET",
            paths.collection("v1", "pods", metadata["namespace"]),
            params={"labelSelector": f"{LOAD_TEST}={metadata['name']}"},
        )
        return listed["items"][0] if listed["items"] else None

    async def _keep_report(self, resource: Manifest, pod: Manifest) -> str:
        """Copy the pod's log into a ConfigMap that outlives the pod; its name, "" if it can't be.

        The verdict counts without it, so that no failure here loses one.
        """
        metadata = resource["metadata"]
        name = f"{metadata['name']}-report"
        try:
            log = await self.api.text(
                f"{paths.pod(metadata['namespace'], pod['metadata']['name'])}/log",
                container="loadgen",
            )
            body: Manifest = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": load_test_labels(metadata["name"]),
                    "ownerReferences": [
                        owner_reference(metadata["name"], metadata["uid"], LoadTestSpec.kind)
                    ],
                },
                "data": {"report.json": log[-MAX_REPORT_BYTES:]},
            }
            await apply_all(self.api, [body])
        except KubeError as error:
            logger.warning("report not kept", extra={"test": name, "error": str(error)})
            return ""
        return name

    async def _write(self, resource: Manifest, status: LoadTestStatus) -> None:
        metadata = resource["metadata"]
        if patch := merge_patch(resource.get("status") or {}, dumped(status)):
            path = paths.item(paths.API_VERSION, PLURAL, metadata["namespace"], metadata["name"])
            await self.api.merge(f"{path}/status", {"status": patch})


def _termination_message(pod: Mapping[str, Any] | None) -> str:
    for container in (pod or {}).get("status", {}).get("containerStatuses") or ():
        if container["name"] == "loadgen":
            return str((container["state"].get("terminated") or {}).get("message", ""))
    return ""


def _objectives(found: list[Mapping[str, Any]]) -> tuple[ObjectiveResult, ...]:
    return tuple(
        ObjectiveResult(
            class_name=item["class"],
            objective=item["objective"],
            verdict=VERDICTS.get(item["outcome"], Verdict.INCONCLUSIVE),
            attained_percent=round(100 * item["attainment"], 4),
            required_percent=round(100 * item["ratio"], 4),
            requests=item["num_requests"],
        )
        for item in found
    )


def _failed(before: LoadTestStatus, reason: str, message: str, now_s: float) -> LoadTestStatus:
    return before.model_copy(
        update={
            "phase": LoadTestPhase.FAILED,
            "summary": message,
            "finished_at": timestamp(now_s),
            "conditions": _conditions(
                before, (TRUE, reason, message), (FALSE, reason, message), now_s
            ),
        }
    )


def _conditions(
    before: LoadTestStatus, complete: Finding, slo: Finding, now_s: float
) -> tuple[Any, ...]:
    known = {condition.type: condition for condition in before.conditions}
    return tuple(
        renewed(kind, finding, known.get(kind), now_s=now_s, generation=None)
        for kind, finding in (("Complete", complete), ("SloMet", slo))
    )
