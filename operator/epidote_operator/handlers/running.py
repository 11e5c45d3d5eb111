"""This file is about the operator's process: kopf, leadership, the ticker, HTTP, and their end."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import kopf

from epidote_operator.act.dry_runs import DryRuns
from epidote_operator.cache_policies import CachePolicies
from epidote_operator.handlers import admission, indexing
from epidote_operator.handlers.health import Health, watch_over
from epidote_operator.handlers.http_server import serve_http
from epidote_operator.handlers.kinds import demand_kinds
from epidote_operator.handlers.load_test_ticker import LoadTestTicker
from epidote_operator.handlers.patience import never_give_up
from epidote_operator.handlers.ticker import Key, Ticker
from epidote_operator.handlers.webhook_server import (
    WebhookSettings,
    keep_fresh,
    refresh,
    webhook_server,
)
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.credentials import (
    SERVICE_ACCOUNT,
    Credentials,
    find_credentials,
    from_service_account,
)
from epidote_operator.kube.leader import LeaderElection
from epidote_operator.kube.rivals import Rivals
from epidote_operator.load_tests import LoadTests
from epidote_operator.log_format import log_to_stderr
from epidote_operator.reconcile import Reconciler
from epidote_operator.resources.labels import Component, label_selector, selector
from epidote_operator.settings import Settings
from epidote_operator.telemetry import OperatorMetrics


@dataclass
class Caches:
    """Kopf's indices."""

    indices: Mapping[str, Any] = field(default_factory=dict)

    def pods(
        self, namespace: str, service: str, component: Component
    ) -> Collection[Mapping[str, Any]]:
        """A `PodSource`."""
        return list(self.indices["pods"].get((namespace, service, component.value), ()))

    def listed(self, index: str) -> Iterable[tuple[Key, Manifest]]:
        """Every resource of an index."""
        for key, found in self.indices[index].items():
            for body in found:
                yield key, body

    def one(self, index: str, namespace: str, name: str) -> Manifest | None:
        """The resource under a key of an index."""
        return next(iter(self.indices[index].get((namespace, name), ())), None)

    async def is_caught_up(self, api: KubeApi, namespace: str, service: str) -> bool:
        """Whether the index of pods has all of a service: kopf does not tell when it is filled.

        One list, before a service's first tick: an empty cache must not be taken for an empty
        fleet.
        """
        listed = await api.request(
            "GET",
            paths.collection("v1", "pods", namespace),
            params={"labelSelector": label_selector(selector(service, Component.WORKER))},
        )
        known = {pod["metadata"]["uid"] for pod in self.pods(namespace, service, Component.WORKER)}
        return {pod["metadata"]["uid"] for pod in listed["items"]} <= known


def log_in(*, in_cluster: bool, **kwargs: Any) -> kopf.ConnectionInfo | None:
    """As our own credentials: the pod's account, else KUBECONFIG.

    Kopf's own knows a pod's server by its DNS name only; every other client by the environment.

    Raises:
        kopf.TemporaryError: the account's files can't be read now.
    """
    if not in_cluster:
        return kopf.login_with_kubeconfig(**kwargs)
    try:
        account = from_service_account()
        token = (SERVICE_ACCOUNT / "token").read_text().strip()
    except OSError as error:  # a rotation may bring it back
        raise kopf.TemporaryError(f"the account can't be read: {error}", delay=1.0) from error
    return kopf.ConnectionInfo(
        server=account.server,
        ca_path=str(SERVICE_ACCOUNT / "ca.crt"),
        token=token,
        default_namespace=account.namespace,
    )


def make_registry(
    caches: Caches,
    webhook: WebhookSettings | None = None,
    dry_runs: DryRuns | None = None,
    *,
    in_cluster: bool = False,
    kuberay: bool = True,
) -> kopf.OperatorRegistry:
    """What kopf shall watch and call; as the pod's account, if `in_cluster`. `kuberay`: whether we
    may write RayClusters."""
    registry = kopf.OperatorRegistry()
    indexing.register(registry)
    if webhook is not None:
        admission.register(registry, dry_runs, kuberay=kuberay)

    @kopf.on.login(registry=registry)
    def authenticate(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return log_in(in_cluster=in_cluster, **kwargs)

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **kwargs: Any) -> None:
        settings.posting.enabled = False  # we tell what changed ourselves, once
        settings.watching.reconnect_backoff = 0.5
        indexing.narrow(settings)
        never_give_up(settings)
        if webhook is not None:
            settings.admission.server = webhook_server(webhook)
        caches.indices = {name: kwargs[name] for name in indexing.NAMES}

    del authenticate, configure
    return registry


async def run_until(
    settings: Settings, credentials: Credentials, stop: asyncio.Event, *, ready: asyncio.Event
) -> None:
    """Run the operator until `stop`. `ready` is set when the caches are filled.

    Raises:
        PartEnded: kopf (credentials that the API server refuses, say) or one of our loops.
        MissingKinds: our CRDs are not installed.
    """
    caches, metrics = Caches(), OperatorMetrics()
    kopf_ready, kopf_stop = asyncio.Event(), asyncio.Event()
    webhook = WebhookSettings.from_env(os.environ) if settings.webhook else None
    health = Health(time.monotonic, is_ready=ready.is_set)
    async with AsyncExitStack() as stack:
        own_api = await stack.enter_async_context(KubeApi.connected(credentials))
        await demand_kinds(own_api, stop)
        if webhook is not None:  # kopf's server reads the certificates when it starts
            await refresh(own_api, webhook, now=datetime.now(UTC))
        leader = _leader(settings, own_api, health) if settings.leader_election else None
        if leader is not None:
            metrics.stands_by.set_function(lambda: float(bool(leader.stands_by)))

        def leads() -> bool:
            return leader is None or leader.is_leader

        # What only the leader may write goes through this one.
        api = await stack.enter_async_context(KubeApi.connected(credentials, may_write=leads))
        policies = CachePolicies(api, partial(caches.one, "cache_policies"), leads)
        reconciler = Reconciler(
            api=api,
            may_act=leads,
            pods=caches.pods,
            settings=settings,
            metrics=metrics,
            policies=policies,
        )

        async def tidy() -> None:
            services = (service for _, service in caches.listed("services"))
            await policies.tidy(caches.listed("cache_policies"), services, time.time())

        ticker = Ticker(
            reconciler=reconciler,
            services=partial(caches.listed, "services"),
            is_caught_up=lambda key: caches.is_caught_up(api, *key),
            leader=leader,
            clock=time.time,
            tick_s=settings.tick_seconds,
            turn=partial(health.turn, "ticker"),
            tidy=tidy,
        )
        health.tick_trouble = lambda: ticker.trouble
        load_tests = LoadTestTicker(
            load_tests=LoadTests(
                api=api,
                service_of=partial(caches.one, "services"),
                job_of=partial(caches.one, "jobs"),
                defaults=settings.defaults,
            ),
            listed=partial(caches.listed, "load_tests"),
            is_active=leads,
            clock=time.time,
        )
        dry_runs = None
        if webhook is not None:  # every operator answers the webhook, whoever leads
            dry_runs = DryRuns(api=own_api, defaults=settings.defaults, deadline_s=webhook.asking_s)
        in_cluster, kuberay = credentials.is_in_cluster, settings.kuberay
        kopf_task = asyncio.create_task(
            kopf.operator(
                registry=make_registry(
                    caches, webhook, dry_runs, in_cluster=in_cluster, kuberay=kuberay
                ),
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                ready_flag=kopf_ready,
                stop_flag=kopf_stop,
            ),
            name="kopf",
        )
        tasks: list[asyncio.Task[Any]] = []
        http = None
        if settings.http_port:
            http = await serve_http(metrics, health, settings.http_host, settings.http_port)
        try:
            await _first(kopf_task, kopf_ready.wait(), stop.wait())
            if kopf_ready.is_set():
                ready.set()
                if leader is not None:
                    tasks.append(asyncio.create_task(leader.run(), name="leader election"))
                tasks.append(asyncio.create_task(ticker.run(), name="ticker"))
                tasks.append(asyncio.create_task(load_tests.run(), name="load tests"))
                if webhook is not None:
                    fresh = keep_fresh(own_api, webhook)
                    tasks.append(asyncio.create_task(fresh, name="webhook certificates"))
            await watch_over(kopf_task, tasks, stop)
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if leader is not None:
                # Not in the task's own end: kopf cancels whatever was started after it, twice.
                await leader.release()
            kopf_stop.set()
            await asyncio.wait([kopf_task], timeout=10.0)
            if http is not None:
                await http.cleanup()


async def _first(*works: Any) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, work in zip(tasks, works, strict=True):
        if not isinstance(work, asyncio.Task):
            task.cancel()


def _leader(settings: Settings, api: KubeApi, health: Health) -> LeaderElection:
    identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
    election = LeaderElection(
        api=api,
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=identity,
        monotonic=time.monotonic,
        lease_s=settings.lease_seconds,
        renew_s=settings.lease_seconds / 5,
        safety_s=settings.lease_seconds / 3,
        turn=partial(health.turn, "leader election"),
        rivals=Rivals(
            api=api,
            namespaces=settings.namespaces,
            own=(settings.namespace, settings.lease_name),
            monotonic=time.monotonic,
        ),
    )
    health.lease_trouble = election.trouble
    health.remark = lambda: election.stands_by
    return election


def run_operator(
    settings: Settings, credentials: Callable[[], Credentials] = find_credentials
) -> None:
    """Until SIGTERM or Ctrl-C."""
    log_to_stderr(settings.log_level)

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run_until(settings, credentials(), stop, ready=asyncio.Event())

    asyncio.run(main())
