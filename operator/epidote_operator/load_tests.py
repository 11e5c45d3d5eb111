"""This file is about LoadTest: wait for the service, run the Job once, keep verdict and report.

no Job, service not Ready     Pending, until `waitSeconds` are over: Failed
no Job, service Ready         the Job is made: Running; what can't be made has Failed
Job ended, with a verdict     Finished; SloMet is the verdict
Job ended, without one        Failed, with the load generator's own words, or the Job's
Job gone before its end       Failed
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.act.events import tell
from epidote_operator.act.objects import apply_all, path_of
from epidote_operator.act.ownership import NameTaken, demand_ours
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused, Conflict, KubeError
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
    Verdict,
)
from epidote_operator.spec.object_name import name_problems
from epidote_operator.spec.parsing import parse_load_test
from epidote_operator.status.conditions import timestamp, unix_time
from epidote_operator.status.load_test import (
    ENDED,
    failed,
    finished,
    reason_of,
    running,
    waiting,
)
from epidote_operator.status.persistence import dumped
from epidote_operator.status.run_log import RunLog, fitted, read_log

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 16 << 20  # read of a pod's log
MAX_REPORT_BYTES, MAX_WORDS_BYTES = 900_000, 50_000  # a ConfigMap holds 1 MiB
EXIT_USAGE = 2  # of the load generator
INVALID = (400, 422)  # what the API server says of an object that can't be


@dataclass(frozen=True, kw_only=True)
class LoadTests:
    """Runs LoadTests. `service_of` and `job_of` read caches."""

    api: KubeApi
    service_of: Callable[[str, str], Manifest | None]
    job_of: Callable[[str, str], Manifest | None]
    defaults: Defaults

    async def reconcile(self, resource: Manifest, now_s: float) -> LoadTestStatus:
        """One look at one LoadTest; at most one patch of its status, an Event for a new phase."""
        before = LoadTestStatus.model_validate(resource.get("status") or {})
        if before.phase in ENDED:
            return before
        try:
            spec = parse_load_test(resource["spec"])
            if problems := name_problems(resource["metadata"]["name"]):
                raise InvalidSpec(problems)
        except InvalidSpec as error:
            status = failed(before, "InvalidSpec", str(error), now_s)
        else:
            status = await self._advance(resource, spec, before, now_s)
        status = status.model_copy(
            update={"observed_generation": resource["metadata"].get("generation")}
        )
        await self._write(resource, status)
        if status.phase is not before.phase:
            await self._tell(resource, status, now_s)
        return status

    async def _advance(
        self, resource: Manifest, spec: LoadTestSpec, before: LoadTestStatus, now_s: float
    ) -> LoadTestStatus:
        metadata = resource["metadata"]
        namespace = metadata["namespace"]
        job = self.job_of(namespace, metadata["name"])
        if job is None and before.phase is LoadTestPhase.RUNNING and before.job_name:
            # The cache lags, or somebody deleted it: the server knows.
            job = await self.api.get(paths.item("batch/v1", "jobs", namespace, before.job_name))
            if job is None:
                gone = f"the Job {before.job_name!r} was deleted before its verdict was read"
                return failed(before, "JobGone", gone, now_s)
        if job is not None:
            return await self._judge(resource, spec, job, before, now_s)
        url, why = self._target(namespace, spec)
        reason = "ServiceNotReady"
        if url is not None:
            objects = load_test_objects(
                metadata["name"], namespace, metadata["uid"], spec, url=url, defaults=self.defaults
            )
            try:
                await self._make(objects)
                return running(before, objects[-1]["metadata"]["name"], url, now_s)
            except NameTaken as taken:
                return failed(before, taken.reason, str(taken), now_s)
            except ApiRefused as refused:
                if refused.status in INVALID:
                    return failed(before, "InvalidSpec", str(refused), now_s)
                if refused.status != 403:
                    raise
                reason, why = "Refused", str(refused)  # a quota, or a policy of the cluster
        waited_s = now_s - unix_time(metadata["creationTimestamp"])
        if waited_s > spec.wait_seconds:
            return failed(before, reason, f"{why}; waited {waited_s:.0f} s", now_s)
        return waiting(before, why, now_s)

    async def _make(self, objects: list[Manifest]) -> None:
        """The Job last, by POST: the answer to it is whether it can be, and it runs once."""
        *others, job = objects
        await apply_all(self.api, others)
        path = path_of(job)
        try:
            await self.api.request(
                "POST", path.rpartition("/")[0], params={"fieldValidation": "Strict"}, body=job
            )
        except Conflict:  # ours: made by an operator that did not live to say so
            demand_ours(await self.api.request("GET", path), job)

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
        self,
        resource: Manifest,
        spec: LoadTestSpec,
        job: Manifest,
        before: LoadTestStatus,
        now_s: float,
    ) -> LoadTestStatus:
        update: dict[str, Any] = {"job_name": job["metadata"]["name"]}
        ended = [
            condition
            for condition in job.get("status", {}).get("conditions") or ()
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        ]
        if not ended:
            if before.phase is not LoadTestPhase.RUNNING:  # made by one that did not say so
                before = running(before, update["job_name"], "its target", now_s)
            return before.model_copy(update=update)
        pod = await self._pod_of(resource)
        end = _end_of(pod)
        log = await self._log_of(resource, pod)
        update["report_config_map"] = await self._keep(resource, log)
        told = str(end.get("message", ""))
        for source in (told, json.dumps((log.report or {}).get("verdict"))):
            try:
                verdict = json.loads(source)
                remark = _remark(spec, end, verdict)
                return finished(before, verdict, now_s, remark=remark).model_copy(update=update)
            except (ValueError, KeyError, TypeError):
                continue
        said = told.strip() or log.reason or ended[0].get("message") or "it ended without a verdict"
        reason = "InvalidConfig" if end.get("exitCode") == EXIT_USAGE else "NoVerdict"
        return failed(before, reason, said, now_s).model_copy(update=update)

    async def _pod_of(self, resource: Manifest) -> Manifest | None:
        metadata = resource["metadata"]
        listed = await self.api.request(
            "GET",
            paths.collection("v1", "pods", metadata["namespace"]),
            params={"labelSelector": f"{LOAD_TEST}={metadata['name']}"},
        )
        return listed["items"][0] if listed["items"] else None

    async def _log_of(self, resource: Manifest, pod: Manifest | None) -> RunLog:
        """What the load generator said; nothing where that can't be had: the verdict counts."""
        if pod is None:
            return read_log("")
        metadata = resource["metadata"]
        try:
            text = await self.api.text(
                f"{paths.pod(metadata['namespace'], pod['metadata']['name'])}/log",
                container="loadgen",
                limitBytes=MAX_LOG_BYTES,
            )
        except KubeError as error:
            extra = {"test": metadata["name"], "error": str(error)}
            logger.warning("log of a load test not read", extra=extra)
            return read_log("")
        return await asyncio.to_thread(read_log, text)  # megabytes of JSON

    async def _keep(self, resource: Manifest, log: RunLog) -> str:
        """Copy the log into a ConfigMap that outlives the pod; its name, "" if there is none.

        The verdict counts without it, so that no failure here loses one.
        """
        metadata = resource["metadata"]
        name = f"{metadata['name']}-report"
        data = {}
        if log.report is not None:
            data["report.json"] = await asyncio.to_thread(fitted, log.report, MAX_REPORT_BYTES)
        if words := "\n".join(log.words):
            data["messages.txt"] = words.encode()[-MAX_WORDS_BYTES:].decode(errors="ignore")
        if not data:
            return ""
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
            "data": data,
        }
        try:
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

    async def _tell(self, resource: Manifest, status: LoadTestStatus, now_s: float) -> None:
        bad = status.phase is LoadTestPhase.FAILED or (
            status.verdict not in (None, Verdict.PASS) and status.phase is LoadTestPhase.FINISHED
        )
        try:
            await tell(
                self.api,
                resource,
                reason=reason_of(status),
                message=status.summary,
                now_s=now_s,
                kind="Warning" if bad else "Normal",
            )
        except KubeError as error:  # the status has it all
            extra = {"test": resource["metadata"]["name"], "error": str(error)}
            logger.warning("event not written", extra=extra)


def _end_of(pod: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """How the load generator's container ended; {} if nobody knows."""
    for container in (pod or {}).get("status", {}).get("containerStatuses") or ():
        if container["name"] == "loadgen":
            return dict(container["state"].get("terminated") or {})
    return {}


def _remark(spec: LoadTestSpec, end: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """That the time was over, which the verdict calls an interruption."""
    if not str(verdict["reason"]).startswith("interrupted") or "startedAt" not in end:
        return ""
    ran_s = unix_time(end.get("finishedAt") or timestamp(0.0)) - unix_time(end["startedAt"])
    if ran_s < spec.timeout_seconds:
        return ""
    return f"timeoutSeconds ({spec.timeout_seconds}) were over: "
