"""This file is about one service to which everything happens, and clients that ask all the time.

Every story begins with one encoder, one prefill worker and two decoders. What a failed one leaves
behind is cleaned up, and if need be the service made anew, so that its trouble stays its own.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.testing.client_traffic import Tally, traffic
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.pretend_image import IMAGE
from epidote_operator.testing.service_story import (
    NAMESPACE,
    OperatorLife,
    change_service,
    delete_service,
    service_manifest,
    settled,
    until_true,
    worker_pods,
)

NAME = "faulty"
AT_REST = (1, 1, 2)
MORE_ENCODERS = [
    {"name": "Encode", "minWorkers": 2},
    {"name": "Decode", "minWorkers": 1, "maxWorkers": 1},
]
MORE_DECODERS = [
    {"name": "Encode", "minWorkers": 1, "maxWorkers": 1},
    {"name": "Decode", "minWorkers": 2},
]


@dataclass
class Story:
    """The service under test, and the clients that use it."""

    api: KubeApi
    cluster: LocalCluster
    tally: Tally = field(default_factory=Tally)
    url: str = "http://127.0.0.1:9"  # of the gateway, once there is one

    def operator(self, **parts: Any) -> OperatorLife:
        return OperatorLife(self.api, NAME, **parts)

    async def ask_roles(self, wanted: list[Manifest]) -> None:
        await change_service(self.api, NAME, {"roles": wanted})

    async def ask_size(self, count: int) -> None:
        await change_service(self.api, NAME, {"pool": {"minWorkers": count, "maxWorkers": count}})

    async def pods(self) -> dict[str, Manifest]:
        return await worker_pods(self.api, NAME)

    async def at_rest(self) -> None:
        """As every test begins, by a healthy operator."""
        try:
            await self._rest()
        except AssertionError:  # an earlier test's trouble: not the next one's
            await delete_service(self.api, NAME)
            await self._rest()
        num_ok = self.tally.num_ok

        async def answers_again() -> bool:
            return self.tally.num_ok > num_ok + 1  # the second was asked after all that

        await until_true(answers_again, "clients are answered")
        self.tally.failures.clear()

    async def _rest(self) -> None:
        manifest = service_manifest(NAME, IMAGE, roles=MORE_DECODERS)
        path = paths.service(NAMESPACE, NAME)
        found = await self.api.get(path)
        if found is None:
            plural = paths.collection(paths.API_VERSION, "multimodalservices", NAMESPACE)
            await self.api.create(plural, manifest)
        else:
            await self.api.request("PUT", path, body={**found, "spec": manifest["spec"]})
            forget = {"status": {"memory": {"starts_blocked_until_s": None}}}
            await self.api.merge(f"{path}/status", forget)
        operator = self.operator()
        try:
            await operator.until(settled(*AT_REST), "the fleet is at rest")
            (self.url,) = operator.state.memory.gateways.all
        finally:
            await operator.end()

    def nothing_failed(self) -> None:
        assert self.tally.num_ok > 0
        assert self.tally.failures == []


@contextlib.asynccontextmanager
async def fault_story(cluster: LocalCluster) -> AsyncIterator[Story]:
    """The service's life; `at_rest` begins each story."""
    async with KubeApi.connected(guarded_credentials(cluster.kubeconfig)) as api:
        story = Story(api, cluster)
        async with traffic(lambda: story.url) as story.tally:
            yield story
        await delete_service(api, NAME)


class Killed(BaseException):
    """The operator's process ends here."""


class Fatal:
    """Hands that die before or after the first call of one method."""

    def __init__(self, hands: Any, method: str, when: str, dead: list[str]) -> None:
        self._hands, self._method, self._when, self._dead = hands, method, when, dead

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._hands, name)
        if name != self._method or self._dead:
            return real

        async def fatal(*args: Any, **kwargs: Any) -> Any:
            if self._when == "after":
                await real(*args, **kwargs)
            self._dead.append(name)
            raise Killed(name)

        return fatal


async def live_until_killed(story: Story, method: str, when: str) -> None:
    dead: list[str] = []
    operator = story.operator(hands=lambda hands: Fatal(hands, method, when, dead))
    with contextlib.suppress(Killed):
        await operator.until(lambda status: False, f"the operator reaches {method}")
    assert dead, f"the operator died at {method}"
    await operator.end()


async def epochs(story: Story) -> int:
    """Role switches of all workers so far, whoever asked for them."""
    operator = story.operator()
    await operator.tick()
    (gateway,) = operator.state.memory.gateways.all.values()
    total = sum(worker.epoch for worker in (await gateway.fleet(0.0)).workers)
    await operator.end()
    return total


def pid_of(folder: Path, pod_uid: str) -> int:
    """The process of a pod's worker."""
    needle = str(folder / "pods" / pod_uid)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_worker = b"pretend_pod" in (entry / "cmdline").read_bytes()
                where = os.readlink(entry / "cwd")
            except OSError:
                continue
            if is_worker and where == needle:
                return int(entry.name)
    raise AssertionError(f"no process runs in {needle}")
