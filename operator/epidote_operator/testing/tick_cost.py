"""This file is about what a tick costs with many services: time and calls of a real API server.

    python -m epidote_operator.testing.tick_cost [--services 100] [--workers 10]
        [--unrelated 0,2000] [--orphaned]

Services and pods are real objects of a test cluster (pods that no node takes), gateways are one
local server that answers for all of them. Everything a tick does is done: two calls of a gateway,
the plan, the status patch. "Unrelated" pods carry no label of ours.

    new       a service's first tick: every object of its fleet is made
    adopted   the same, with `--orphaned`: its worker pods are there, and are taken back
    restart   the first tick of an operator that finds fleets which are as they should be
    rest      no counter moves
    load      every tick's figures are news
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from epidote_core.roles import Role
from epidote_operator.cache_policies import CachePolicies
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.merge_patch import merge_patch
from epidote_operator.observe import cluster_observer
from epidote_operator.reconcile import Reconciler
from epidote_operator.resources.fleet_values import owner_reference
from epidote_operator.resources.labels import REVISION, SERVICE, Component, labels, role_labels
from epidote_operator.resources.revision import revision_of
from epidote_operator.service_state import ServiceState
from epidote_operator.settings import Settings
from epidote_operator.spec.parsing import parse_service
from epidote_operator.telemetry import OperatorMetrics
from epidote_operator.testing.binaries import find_binaries
from epidote_operator.testing.cluster import LocalCluster, load_crds
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.service_story import service_manifest

NAMESPACE = "default"
SHARE = (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.DECODE)
READY = {"type": "Ready", "status": "True"}
WARM_UP = 2  # ticks
CRDS = Path(__file__).resolve().parents[3] / "crds"
PODS = paths.collection("v1", "pods", NAMESPACE)


def pod(name: str, given: dict[str, str]) -> Manifest:
    """A pod that no scheduler and no node takes."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": given},
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,  # a young cluster has none yet
            "containers": [{"name": "worker", "image": "none"}],
        },
    }


def part_of(worker: Manifest, component: Component) -> Manifest:
    """A head's or gateway's pod beside a worker, as an index has it, that has not come up."""
    known = worker["metadata"]["labels"]
    given = labels(known[SERVICE], component, known[REVISION])
    name = f"{known[SERVICE]}-{component.value}"
    return {"metadata": {"name": name, "uid": name, "labels": given}, "status": {}}


async def serve_gateway(num_workers: int, count: dict[str, int]) -> tuple[web.AppRunner, str]:
    """A gateway whose workers are called like the pods of whichever service asks by its path.

    Each scrape finds `count["step"]` requests more.
    """

    async def fleet(request: web.Request) -> web.Response:
        service = request.match_info["service"]
        load = {
            "num_waiting": 0,
            "num_running": 1,
            "num_encoding": 0,
            "queued_prefill_tokens": 0,
            "num_kv_blocks": 1000,
            "num_free_kv_blocks": 900,
            "prefix_hit_tokens": 0,
            "prefix_query_tokens": 0,
        }
        workers = [
            {
                "worker_id": f"{service}-worker-{number}",
                "role": SHARE[number % len(SHARE)].value,
                "state": "routable",
                "epoch": 1,
                "load": load,
            }
            for number in range(num_workers)
        ]
        return web.json_response({"workers": workers})

    async def metrics(_: web.Request) -> web.Response:
        count["total"] += count["step"]
        total = count["total"]
        lines = [f'epidote_arrivals_total{{modality="text"}} {total}']
        for name in ("output", "text", "media"):
            lines += [
                f'epidote_request_{name}_tokens_bucket{{modality="text",le="{bound}"}} {total}'
                for bound in (*range(10, 200, 10), "+Inf")
            ]
            lines.append(f'epidote_request_{name}_tokens_sum{{modality="text"}} {total * 5}')
        return web.Response(text="\n".join(lines))

    async def taken(_: web.Request) -> web.Response:
        return web.json_response({"num_workers": num_workers, "num_current": num_workers})

    app = web.Application()
    app.router.add_get("/{service}/admin/fleet", fleet)
    app.router.add_get("/{service}/metrics", metrics)
    app.router.add_post("/{service}/admin/scale", taken)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    return runner, f"http://127.0.0.1:{port}"


async def in_groups(works: list[Any], size: int = 32) -> None:
    for start in range(0, len(works), size):
        await asyncio.gather(*works[start : start + size])


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One operator's life in ticks. `url`: of the gateway that answers for all services."""

    api: KubeApi
    reconciler: Reconciler
    num_workers: int
    states: dict[str, ServiceState]
    resources: dict[str, Manifest] = field(default_factory=dict)  # as the caches have them

    @classmethod
    async def begin(cls, api: KubeApi, url: str, services: int, workers: int) -> "Bench":
        """An operator that knows nothing yet but what its caches would have."""
        listed = await api.request("GET", PODS, params={"labelSelector": "epidote.dev/service"})
        by_service: dict[str, list[Manifest]] = defaultdict(list)
        for item in listed["items"]:
            item["status"] = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [READY]}
            by_service[item["metadata"]["labels"]["epidote.dev/service"]].append(item)
        gateways: dict[str, str] = {}

        def find(namespace: str, service: str, component: Component) -> list[Manifest]:
            if component is Component.WORKER:
                return by_service[service]
            gateways["now"] = f"{url}/{service}"
            (worker, *_) = by_service[service]
            return [part_of(worker, component)]

        # Gateways are found by their pods' addresses; here one server answers for all of them.
        cluster_observer.gateway_urls = lambda pods: [gateways["now"]]
        reconciler = Reconciler(
            api=api,
            pods=find,
            settings=Settings(),
            metrics=OperatorMetrics(),
            policies=CachePolicies(api, lambda namespace, name: None),
        )
        states = {f"bench-{number}": ServiceState() for number in range(services)}
        return cls(api=api, reconciler=reconciler, num_workers=services * workers, states=states)

    async def first(self, what: str, num_pods: int) -> None:
        """The first tick of each service, a row of its own."""
        seconds, calls = list[float](), list[int]()
        for name, state in self.states.items():
            self.resources[name] = await self.api.request("GET", paths.service(NAMESPACE, name))
            await self._tick(name, state, seconds, calls)
        self._print(what, num_pods, seconds, calls)

    async def later(self, what: str, num_pods: int, ticks: int) -> None:
        """Ticks of services that the operator knows."""
        seconds, calls = list[float](), list[int]()
        for number in range(-WARM_UP, ticks):  # until the decision has settled
            for name, state in self.states.items():
                kept = (seconds, calls) if number >= 0 else ([], [])
                await self._tick(name, state, *kept)
        self._print(what, num_pods, seconds, calls)

    async def _tick(
        self, name: str, state: ServiceState, seconds: list[float], calls: list[int]
    ) -> None:
        before, started_s = self.api.num_calls, time.perf_counter()
        await self.reconciler.reconcile(self.resources[name], state, time.time())
        seconds.append(time.perf_counter() - started_s)
        calls.append(self.api.num_calls - before)

    def _print(self, what: str, num_pods: int, seconds: list[float], calls: list[int]) -> None:
        seconds.sort()
        size = f"{what:>8} {len(self.states):>8} {self.num_workers:>8} {num_pods:>8}"
        took = f"{1000 * statistics.median(seconds):>8.1f} {1000 * quantile99(seconds):>8.1f}"
        print(f"{size}   {took}   {statistics.mean(calls):>8.2f} {max(calls):>6}", flush=True)

    async def end(self) -> None:
        for state in self.states.values():
            await state.aclose()


async def count_pods(api: KubeApi) -> int:
    listed = await api.request("GET", PODS, params={"limit": "1"})
    return 1 + int(listed["metadata"].get("remainingItemCount", 0))


def quantile99(ordered: list[float]) -> float:
    return ordered[int(0.99 * len(ordered))]


async def statuses(api: KubeApi, services: int) -> dict[str, Manifest]:
    """By service."""
    names = [f"bench-{number}" for number in range(services)]
    found = [await api.request("GET", paths.service(NAMESPACE, name)) for name in names]
    return {name: item["status"] for name, item in zip(names, found, strict=True)}


async def make_fleets(api: KubeApi, arguments: argparse.Namespace) -> None:
    """Services, and pods that are theirs or, orphaned, only carry their labels."""
    plural = paths.collection(paths.API_VERSION, "multimodalservices", NAMESPACE)
    pool = {"minWorkers": arguments.workers, "maxWorkers": arguments.workers}

    async def make(number: int) -> None:
        name = f"bench-{number}"
        # Advisory: the pods never change, so that a plan carried out would be made for ever.
        manifest = service_manifest(name, "none", pool=pool, scaling={"mode": "Advisory"})
        # As it is stored: defaults are part of what a revision is made from.
        made = await api.create(plural, manifest)
        revision = revision_of(parse_service(made["spec"]), Settings().defaults)
        owner = owner_reference(name, made["metadata"]["uid"])
        for worker in range(arguments.workers):
            given = labels(name, Component.WORKER, revision)
            given |= role_labels(SHARE[worker % len(SHARE)])
            body = pod(f"{name}-worker-{worker}", given)
            if not arguments.orphaned:
                body["metadata"]["ownerReferences"] = [owner]
            await api.create(PODS, body)

    await in_groups([make(number) for number in range(arguments.services)])


async def run(arguments: argparse.Namespace, cluster: LocalCluster) -> None:
    # No node: pods are objects here, and nothing of them runs.
    await cluster.control_plane.start(crds=load_crds(CRDS))
    count = {"total": 0, "step": 0}
    runner, url = await serve_gateway(arguments.workers, count)
    async with KubeApi.connected(guarded_credentials(cluster.kubeconfig)) as api:
        await make_fleets(api, arguments)
        print("    what services  workers all pods    tick ms   p99 ms   API calls    max")
        size = arguments.services, arguments.workers
        bench = await Bench.begin(api, url, *size)
        await bench.first("adopted" if arguments.orphaned else "new", await count_pods(api))
        await bench.end()
        rested = await statuses(api, arguments.services)
        there = 0
        for unrelated in arguments.unrelated:
            more = [
                api.create(PODS, pod(f"other-{number}", {"app": "other"}))
                for number in range(there, unrelated)
            ]
            there = max(there, unrelated)
            await in_groups(more)
            num_pods = await count_pods(api)
            count["step"] = 0
            for name, status in (await statuses(api, arguments.services)).items():
                # As before any load: what is forecast of one fades over many ticks, each a write.
                back = merge_patch(status, rested[name])
                await api.merge(f"{paths.service(NAMESPACE, name)}/status", {"status": back})
            bench = await Bench.begin(api, url, *size)
            await bench.first("restart", num_pods)
            for load, step in (("rest", 0), ("load", 1)):
                count["step"] = step
                await bench.later(load, num_pods, arguments.ticks)
            await bench.end()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument(
        "--unrelated", type=lambda text: [int(n) for n in text.split(",")], default=[0, 2000]
    )
    parser.add_argument("--orphaned", action="store_true")
    arguments = parser.parse_args()
    print(f"configuration: {vars(arguments)}")
    with tempfile.TemporaryDirectory() as scratch:
        cluster = LocalCluster(Path(scratch) / "cluster", find_binaries(), outlives_us=False)
        try:
            asyncio.run(run(arguments, cluster))
        finally:
            cluster.down()


if __name__ == "__main__":
    main()
