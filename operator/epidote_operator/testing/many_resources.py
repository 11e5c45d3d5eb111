"""This file is about a thousand generated resources on a real API server, half of them invalid.

    python -m epidote_operator.testing.many_resources [--count 1000] [--wave 200]

Nothing is a dry run: an operator process of its own, with its webhook, refuses the invalid ones by
field; the valid ones are created, reconciled (status of this generation, conditions, every object
that their spec asks for), deleted, and leave nothing behind. In waves, so that only so many are
there at once. Their pods find no node: what runs is the operator, the API server and controllers.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.testing import loopback_webhook
from epidote_operator.testing.binaries import find_binaries
from epidote_operator.testing.cluster import LocalCluster, load_crds
from epidote_operator.testing.control_plane import PARTS, Ports
from epidote_operator.testing.expected_objects import (
    Objects,
    missing_of,
    objects_of_ours,
    ray_cluster_crd,
)
from epidote_operator.testing.generated_resources import KINDS, Generated, resource
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.operator_process import OperatorProcess
from epidote_operator.testing.processes import cpu_seconds, cpu_seconds_of

NAMESPACE = "many"
AT_ONCE = 8  # creations under way
PATIENCE_S = 300.0  # for one wave; CI's cores are slow and shared
POLL_S = 0.5
CRDS = Path(__file__).resolve().parents[3] / "crds"


@dataclass
class Tally:
    """What became of them. `wrong` says what was not as it should be."""

    num_refused: int = 0
    num_reconciled: int = 0
    num_objects: int = 0
    wrong: list[str] = field(default_factory=list)
    reconciled_s: dict[str, list[float]] = field(default_factory=dict)  # after creation, by kind
    spent_s: dict[str, float] = field(default_factory=dict)  # by step
    cpu_s: dict[str, float] = field(default_factory=dict)  # by process

    def spend(self, step: str, since_s: float) -> None:
        self.spent_s[step] = self.spent_s.get(step, 0.0) + time.monotonic() - since_s

    def __str__(self) -> str:
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.spent_s.items())
        cpu = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.cpu_s.items())
        waits = ", ".join(
            f"{kind} {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
            for kind, seconds in sorted(self.reconciled_s.items())
        )
        return (
            f"{self.num_refused} refused by field, {self.num_reconciled} reconciled with "
            f"{self.num_objects} objects, {len(self.wrong)} wrong; {steps}; reconciled after "
            f"(median): {waits}; CPU: {cpu}"
        )


@dataclass
class Story:
    """One namespace, one operator, waves of resources."""

    api: KubeApi
    tally: Tally = field(default_factory=Tally)

    async def wave(self, numbers: Iterable[int]) -> None:
        """Create, see reconciled, delete, see gone."""
        everything = [resource(number, NAMESPACE) for number in numbers]
        valid = [item for item in everything if item.fault is None]
        started_s = time.monotonic()
        made = await self._create(everything)
        self.tally.spend("create", started_s)
        started_s = time.monotonic()
        await self._until_reconciled(valid, made)
        self.tally.spend("reconcile", started_s)
        started_s = time.monotonic()
        await asyncio.gather(*(self.api.delete(self._path(item)) for item in valid))
        await self._until_gone()
        self.tally.spend("delete", started_s)

    async def _create(self, everything: list[Generated]) -> dict[str, float]:
        """When each valid one was made, by name."""
        limit, made = asyncio.Semaphore(AT_ONCE), dict[str, float]()

        async def post(item: Generated) -> None:
            path = paths.collection(paths.API_VERSION, item.plural, NAMESPACE)
            async with limit:
                try:
                    await self.api.create(path, item.manifest)
                except ApiRefused as refused:
                    self._refused(item, refused)
                else:
                    made[item.name] = time.monotonic()
                    if item.fault is not None:
                        self.tally.wrong.append(f"{item.name}: {item.fault.name} was accepted")

        await asyncio.gather(*(post(item) for item in everything))
        return made

    def _refused(self, item: Generated, refused: ApiRefused) -> None:
        fault = item.fault
        if fault is not None and refused.status == 422 and fault.is_named_in(str(refused)):
            self.tally.num_refused += 1
        else:
            what = "a good one" if fault is None else fault.name
            self.tally.wrong.append(f"{item.name}: {what}: {refused}")

    async def _until_reconciled(self, valid: list[Generated], made: dict[str, float]) -> None:
        waiting = {item.name: item for item in valid if item.name in made}
        told = dict[str, list[str]]()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while waiting:
                    stored = await self._stored()
                    found = await objects_of_ours(self.api, NAMESPACE)
                    seen_s = time.monotonic()
                    for name, item in list(waiting.items()):
                        told[name] = self._missing(item, stored[name], found)
                        if not told[name]:
                            del waiting[name]
                            self.tally.num_reconciled += 1
                            waits = self.tally.reconciled_s.setdefault(item.kind, [])
                            waits.append(seen_s - made[name])
                            self.tally.num_objects += len(found.of(stored[name]))
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self.tally.wrong += [f"{name}: never had {told[name]}" for name in waiting]

    async def _stored(self) -> dict[str, Manifest]:
        stored = {}
        for kind, plural in KINDS.items():
            path = paths.collection(paths.API_VERSION, plural, NAMESPACE)
            for item in (await self.api.request("GET", path))["items"]:
                stored[item["metadata"]["name"]] = {**item, "kind": kind}
        return stored

    def _missing(self, item: Generated, stored: Manifest, found: Objects) -> list[str]:
        status = stored.get("status") or {}
        if status.get("observedGeneration") != stored["metadata"]["generation"]:
            return ["a status of this generation"]
        if not status.get("conditions"):
            return ["conditions"]
        return missing_of(stored, found)

    async def _until_gone(self) -> None:
        left: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while left := [
                    *(await self._stored()),
                    *(await objects_of_ours(self.api, NAMESPACE)).names,
                ]:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self.tally.wrong.append(f"{len(left)} objects were left behind, such as {left[:3]}")

    def _path(self, item: Generated) -> str:
        return paths.item(paths.API_VERSION, item.plural, NAMESPACE, item.name)


async def play(api: KubeApi, kubeconfig: Path, folder: Path, *, count: int, wave: int) -> Tally:
    """Resources 0 to `count`, `wave` at a time. The cluster has RayClusters."""
    metadata = {"name": NAMESPACE, "labels": {"name": NAMESPACE}}
    body: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    await api.apply(f"/api/v1/namespaces/{NAMESPACE}", body)
    port = Ports.free().etcd
    hooks = paths.collection(loopback_webhook.API, loopback_webhook.PLURAL)
    hook = loopback_webhook.configuration(NAMESPACE, KINDS.values(), namespace=NAMESPACE, port=port)
    await api.create(hooks, hook)
    operator = OperatorProcess(
        kubeconfig,
        folder / "operator.log",
        {
            "NAMESPACES": NAMESPACE,
            "NAMESPACE": NAMESPACE,
            "LEADER_ELECTION": "false",
            "WEBHOOK": "true",
            "LOG_LEVEL": "WARNING",
        },
        EPIDOTE_WEBHOOK_ADDRESS="127.0.0.1",
        EPIDOTE_WEBHOOK_PORT=str(port),
        EPIDOTE_WEBHOOK_SERVICE="127.0.0.1",
        EPIDOTE_WEBHOOK_NAMESPACE=NAMESPACE,
        EPIDOTE_WEBHOOK_CONFIGURATION=NAMESPACE,
        EPIDOTE_WEBHOOK_TIMEOUT_SECONDS=str(loopback_webhook.TIMEOUT_S),
        EPIDOTE_WEBHOOK_FOLDER=str(folder / "tls"),
    )
    story = Story(api)
    try:
        await operator.until_ready()
        await _until_asked(api)
        for first in range(0, count, wave):
            await story.wave(range(first, min(count, first + wave)))
            parts = {part: cpu_seconds_of(kubeconfig.parent, part) for part in PARTS}
            story.tally.cpu_s = {"operator": cpu_seconds(operator.process.pid), **parts}
            print(f"{min(count, first + wave):>5} of {count}: {story.tally}", flush=True)
    finally:
        operator.end()
        await api.delete(f"{hooks}/{NAMESPACE}")
    return story.tally


async def _until_asked(api: KubeApi) -> None:
    """The API server takes a moment to hear of a new webhook, and of whom to trust."""
    fault_of_rules = next(
        item
        for number in range(1, 1000, 2)
        if (item := resource(number, NAMESPACE)).fault and not item.fault.schema
    )
    path = paths.collection(paths.API_VERSION, fault_of_rules.plural, NAMESPACE)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await api.request(
                    "POST", path, params={"dryRun": "All"}, body=fault_of_rules.manifest
                )
            except ApiRefused as refused:
                assert fault_of_rules.fault is not None
                if fault_of_rules.fault.is_named_in(str(refused)):
                    return
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m epidote_operator.testing.many_resources", description=__doc__
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--wave", type=int, default=200)
    arguments = parser.parse_args()
    print(f"configuration: {vars(arguments)}")

    async def run(cluster: LocalCluster, folder: Path) -> Tally:
        await cluster.control_plane.start(crds=[*load_crds(CRDS), ray_cluster_crd()])
        async with KubeApi.connected(guarded_credentials(cluster.kubeconfig)) as api:
            size = {"count": arguments.count, "wave": arguments.wave}
            return await play(api, cluster.kubeconfig, folder, **size)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cluster = LocalCluster(folder / "cluster", find_binaries(), outlives_us=False)
        started_s = time.monotonic()
        try:
            tally = asyncio.run(run(cluster, folder))
        finally:
            cluster.down()
    print(f"{time.monotonic() - started_s:.0f} s in all: {tally}")
    for line in tally.wrong:
        print(line)
    raise SystemExit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
