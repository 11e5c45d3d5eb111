"""This file is about one pod on this node: its containers, its status, its end."""

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from epidote_operator.kube import paths
from epidote_operator.kube.api import STRATEGIC, KubeApi, Manifest
from epidote_operator.kube.errors import KubeError
from epidote_operator.testing.node.container import Container, timestamp
from epidote_operator.testing.node.environment import PodEnvironment
from epidote_operator.testing.node.probes import Prober

logger = logging.getLogger(__name__)

RETRY_S = 0.5  # while the API server is away


class RunningPod:
    """A pod that is bound to this node. `ip` is its own address on loopback."""

    def __init__(
        self,
        api: KubeApi,
        http: httpx.AsyncClient,
        pod: Manifest,
        *,
        folder: Path,
        ip: str,
        images: Mapping[str, str],
        hosts: Path,
    ) -> None:
        self.pod, self.ip, self.folder = pod, ip, folder
        metadata = pod["metadata"]
        self.uid, self.namespace, self.name = (
            metadata["uid"],
            metadata["namespace"],
            metadata["name"],
        )
        self._api, self._path = api, paths.pod(self.namespace, self.name)
        self._environment = environment = PodEnvironment(api, pod, pod_ip=ip)
        self._started_at = timestamp()
        self._trouble = ""
        self._is_initialized = not pod["spec"].get("initContainers")
        self._is_stopping = False
        self._reporting = asyncio.Lock()
        prober = Prober(http, ip)

        def container(spec: Mapping[str, Any], *, is_init: bool) -> Container:
            return Container(
                spec,
                folder=folder,
                environment=environment,
                prober=prober,
                images=images,
                hosts=hosts,
                is_init=is_init,
                restart_policy=pod["spec"].get("restartPolicy", "Always"),
                changed=self.report,
            )

        spec = pod["spec"]
        self._init = [container(c, is_init=True) for c in spec.get("initContainers", [])]
        self._containers = [container(c, is_init=False) for c in spec["containers"]]
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            await self.report()
            await self._environment.write_volumes(self.folder)
            for container in self._init:
                await container.run()
            self._is_initialized = True
            async with asyncio.TaskGroup() as group:
                for container in self._containers:
                    group.create_task(container.run())
            await self.report()
        except Exception as error:  # the pod's own trouble: it shows in its status
            logger.warning("pod does not run", extra={"pod": self._path, "error": repr(error)})
            self._trouble = repr(error)
            await self.report()

    async def report(self) -> None:
        """Write the pod's status; tried again while the API server is away."""
        async with self._reporting:
            while not self._is_stopping:
                body = {"metadata": {"uid": self.uid}, "status": self._status()}
                try:
                    await self._api.merge(f"{self._path}/status", body, content_type=STRATEGIC)
                    return
                except KubeError as error:
                    logger.debug("status not written", extra={"error": repr(error)})
                    if getattr(error, "status", 500) in (404, 409, 422):
                        return  # another pod has the name now
                    await asyncio.sleep(RETRY_S)

    def _status(self) -> Manifest:
        statuses = [container.status for container in self._containers]
        if trouble := self._trouble or self._environment.missing:
            waiting = {"reason": "CreateContainerConfigError", "message": trouble}
            statuses = [
                {**status, "state": {"waiting": waiting}}
                if "waiting" in status["state"]
                else status
                for status in statuses
            ]
        is_ready = all(status["ready"] for status in statuses)
        return {
            "phase": phase(statuses),
            "hostIP": "127.0.0.1",
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "startTime": self._started_at,
            "containerStatuses": statuses,
            "initContainerStatuses": [container.status for container in self._init],
            "conditions": [
                condition("Initialized", self._is_initialized),
                condition("Ready", is_ready),
                condition("ContainersReady", is_ready),
                condition("PodScheduled", True),
            ],
        }

    @property
    def is_ready(self) -> bool:
        """Whether Services may lead to it: not while it ends, as endpoints have it."""
        return not self._is_stopping and all(part.status["ready"] for part in self._containers)

    async def end(self, grace_s: float) -> None:
        """Stop the containers within `grace_s`, then take the pod off the API server."""
        self._is_stopping = True
        async with asyncio.TaskGroup() as group:
            for container in (*self._init, *self._containers):
                group.create_task(container.stop(grace_s))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while True:
            try:
                await self._api.delete(self._path, grace_s=0, uid=self.uid)
                break
            except KubeError:
                await asyncio.sleep(RETRY_S)
        self._environment.remove_volumes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """End every process at once; the API server is not told."""
        self._is_stopping = True
        self._task.cancel()
        for container in (*self._init, *self._containers):
            container.kill()
        self._environment.remove_volumes()


def phase(statuses: Sequence[Mapping[str, Any]]) -> str:
    """A pod's phase from its containers' statuses, as a kubelet sums it up."""
    ended = [status["state"].get("terminated") for status in statuses]
    if all(ended):
        good = all(end["exitCode"] == 0 for end in ended if end)
        return "Succeeded" if good else "Failed"
    runs = any("running" in status["state"] or status["restartCount"] for status in statuses)
    return "Running" if runs else "Pending"


def condition(kind: str, is_true: bool, **more: str) -> dict[str, str]:
    status = "True" if is_true else "False"
    return {"type": kind, "status": status, "lastTransitionTime": timestamp(), **more}
