"""This file is about the node agent: a Node that is alive, and the pods that are bound to it.

It is a kubelet's part of the contract, not its whole: no images, no cgroups, no isolation. Pods
share this machine's network; each gets an address of its own in the node's part of 127.0.0.0/8
(downward API `status.podIP`), on which it should listen.
"""

import asyncio
import logging
import os
import platform
import signal
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx

from epidote_operator.kube.api import STRATEGIC, KubeApi, Manifest
from epidote_operator.kube.errors import KubeError
from epidote_operator.testing.node.addresses import Addresses
from epidote_operator.testing.node.container import timestamp
from epidote_operator.testing.node.names import NamesFile
from epidote_operator.testing.node.pod import RunningPod, condition

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0  # the node counts as lost after 40 s
LEASE_S = 40
RETRY_S = 0.5
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class NodeAgent:
    """One node; `gpus` are what it pretends to have, for the scheduler.

    `images`: what an image is here, a folder of programs that comes first in `PATH`. A container
    without a command runs the program `entrypoint`.
    """

    def __init__(
        self,
        api: KubeApi,
        name: str,
        folder: Path,
        *,
        images: Mapping[str, str],
        gpus: int = 0,
        kubelet_port: int = 0,
    ) -> None:
        self._api, self._name, self._folder = api, name, folder
        self._images, self._gpus, self._kubelet_port = images, gpus, kubelet_port
        self._addresses = Addresses()
        self._http = httpx.AsyncClient(
            verify=False,  # probes are asked without checking certificates, as kubelets do
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.pods: dict[str, RunningPod] = {}
        self._names = NamesFile(api, folder / "hosts")
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled; then every pod's processes are killed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._follow())
                group.create_task(self._names.follow(self.pods))
        finally:
            for pod in self.pods.values():
                pod.kill()
            self._addresses.close()
            await self._http.aclose()

    async def _beat(self) -> None:
        while True:
            try:
                await self._tell()
            except KubeError as error:  # the server restarts: the next beat tells it
                logger.debug("heartbeat unanswered", extra={"error": repr(error)})
                await asyncio.sleep(RETRY_S)
                continue
            await asyncio.sleep(HEARTBEAT_S)

    async def _tell(self) -> None:
        labels = {"kubernetes.io/hostname": self._name, "kubernetes.io/os": "linux"}
        node: Manifest = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": labels},
        }
        path = f"/api/v1/nodes/{self._name}"
        if await self._api.merge(f"{path}/status", self._status(), content_type=STRATEGIC) is None:
            await self._api.create("/api/v1/nodes", node)
            await self._api.merge(f"{path}/status", self._status(), content_type=STRATEGIC)
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": renewed,
        }
        if await self._api.merge(f"{LEASES}/{self._name}", {"spec": spec}) is None:
            await self._api.create(
                LEASES,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self._name},
                    "spec": spec,
                },
            )

    def _status(self) -> Manifest:
        capacity = {"cpu": "64", "memory": "64Gi", "pods": "2000"}
        if self._gpus:
            capacity["nvidia.com/gpu"] = str(self._gpus)
        ready = condition("Ready", True, reason="NodeAgent", lastHeartbeatTime=timestamp())
        return {
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "addresses": [
                    {"type": "InternalIP", "address": "127.0.0.1"},
                    {"type": "Hostname", "address": "localhost"},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet_port}},
                "conditions": [ready],
                "nodeInfo": {
                    "kubeletVersion": "v0.0.0-epidote",
                    "kubeProxyVersion": "",
                    "containerRuntimeVersion": "process://1",
                    "osImage": "this machine",
                    "operatingSystem": "linux",
                    "kernelVersion": os.uname().release,
                    "architecture": {"x86_64": "amd64"}.get(platform.machine(), "arm64"),
                    "machineID": "",
                    "systemUUID": "",
                    "bootID": "",
                },
            }
        }

    async def _follow(self) -> None:
        path = "/api/v1/pods"
        selector = {"fieldSelector": f"spec.nodeName={self._name}"}
        while True:
            try:
                listed = await self._api.request("GET", path, params=selector)
                self._adopt(listed["items"])
                version = listed["metadata"]["resourceVersion"]
                async for event in self._api.watch(path, version=version, **selector):
                    if event["type"] != "BOOKMARK":
                        self._see(event["object"], is_gone=event["type"] == "DELETED")
            except KubeError as error:  # restarted, or the watch is too old: list again
                logger.debug("watch ended", extra={"error": repr(error)})
                await asyncio.sleep(RETRY_S)

    def _adopt(self, pods: Sequence[Manifest]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid, running in list(self.pods.items()):
            if uid not in there:
                self._see(running.pod, is_gone=True)
        for pod in pods:
            self._see(pod, is_gone=False)

    def _see(self, pod: Manifest, *, is_gone: bool) -> None:
        """Start a new pod, end one that is to go, leave the rest alone."""
        metadata = pod["metadata"]
        uid, is_leaving = metadata["uid"], "deletionTimestamp" in metadata
        running = self.pods.get(uid)
        if running is None:
            is_over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if is_gone or uid in self._ending:
                return
            if is_leaving:
                self._spawn_end(uid, self._forget(pod))
            elif not is_over:
                self.pods[uid] = RunningPod(
                    self._api,
                    self._http,
                    pod,
                    folder=self._folder / uid,
                    ip=self._addresses.take(uid),
                    images=self._images,
                    hosts=self._names.path,
                )
        elif (is_gone or is_leaving) and uid not in self._ending:
            grace_s = 0 if is_gone else metadata.get("deletionGracePeriodSeconds", 30)
            self._spawn_end(uid, self._end(running, grace_s))

    def _spawn_end(self, uid: str, work: Coroutine[None, None, None]) -> None:
        task = self._ending[uid] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._ending.pop(uid, None))

    async def _end(self, running: RunningPod, grace_s: float) -> None:
        await running.end(grace_s)
        del self.pods[running.uid]
        self._addresses.give_back(running.uid)

    async def _forget(self, pod: Manifest) -> None:
        """A leaving pod that was never started here, or whose end an earlier agent missed."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        while True:
            try:
                await self._api.delete(path, grace_s=0, uid=metadata["uid"])
                return
            except KubeError:
                await asyncio.sleep(RETRY_S)


async def until_signalled(work: "asyncio.Task[None]") -> None:
    """Run `work` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        logger.info("node agent stopped")
