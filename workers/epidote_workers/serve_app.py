"""This file is about the Serve application: its three deployments and how Serve keeps them.

    Engine    one replica a worker (role carried by the replica, number set from outside)
    Fleet     one replica: the register of workers
    Gateway   one or more replicas: HTTP

Streams never pass through Serve: gateway and workers talk over their own sockets. Serve starts,
watches, restarts and counts the processes and carries the admin calls.
"""

from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from epidote_workers.engine_replica import EngineReplica
from epidote_workers.fleet_replica import FleetReplica
from epidote_workers.fleet_view import Wish
from epidote_workers.gateway_replica import OwnGateway, served_gateway
from epidote_workers.membership import LEAVE_TIMEOUT_S
from epidote_workers.role_router import STATS_PERIOD_S, RoleRouter
from epidote_workers.service_settings import (
    ENGINE,
    FLEET,
    GATEWAY,
    HEAD_RESOURCE,
    Ingress,
    ServiceSettings,
)

# Serve's default of 5 would let five long polls or admin calls block the rest.
MAX_ONGOING = 1000
COMMON: dict[str, Any] = {
    "max_ongoing_requests": MAX_ONGOING,
    "graceful_shutdown_wait_loop_s": 0.05,  # Serve's default is 2 s, waited even when idle
    "health_check_period_s": 1.0,  # a dead replica is replaced within this
    "health_check_timeout_s": 30.0,  # loading weights may hold the interpreter for long
    "logging_config": {"log_level": "WARNING", "enable_access_log": False},
}


def build_application(settings: ServiceSettings) -> Any:
    """The application, to be run with `external_scaler_enabled=True`.

    Without gateways in it they are processes of their own, started by `epidote gateway`.
    """
    worker = settings.worker
    on_head = {"num_cpus": 0, "resources": {HEAD_RESOURCE: 0.001} if worker.joins else {}}
    fleet = serve.deployment(
        FleetReplica,
        name=FLEET,
        num_replicas=1,
        graceful_shutdown_timeout_s=5.0,
        ray_actor_options=on_head,
        **COMMON,
    ).bind(
        Wish(
            shape=dict(settings.shape),
            num_workers=settings.num_workers,
            stages=settings.stages,
        ),
        settings,
    )
    engine = serve.deployment(
        EngineReplica,
        name=ENGINE,
        num_replicas=settings.num_workers,
        graceful_shutdown_timeout_s=LEAVE_TIMEOUT_S + worker.drain_s + 8.0,
        ray_actor_options={
            "num_cpus": worker.num_cpus,
            "num_gpus": worker.num_gpus,
            "resources": worker.resources,
        },
        request_router_config=RequestRouterConfig(
            request_router_class=RoleRouter, request_routing_stats_period_s=STATS_PERIOD_S
        ),
        **COMMON,
    ).bind(worker, fleet)
    if not settings.num_gateways:
        return engine
    behind_serve = settings.ingress is Ingress.SERVE
    return serve.deployment(
        served_gateway() if behind_serve else OwnGateway,
        name=GATEWAY,
        num_replicas=settings.num_gateways,
        graceful_shutdown_timeout_s=30.0 if behind_serve else 10.0,
        ray_actor_options=on_head,
        **COMMON,
    ).bind(settings, fleet, engine)


def route_prefix(settings: ServiceSettings) -> str | None:
    """Where Serve's proxy finds the application; None: nowhere, the gateway listens itself."""
    return "/" if settings.ingress is Ingress.SERVE else None
