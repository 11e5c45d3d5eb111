"""This file is about what probes, scrapers and clients ask first: health, metrics, models."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from epidote_core.roles import Stage
from epidote_gateway.admin_bodies import RoleCounts, Status
from epidote_gateway.api_errors import ApiError
from epidote_gateway.http_exchange import Exchange
from epidote_gateway.responses import Model, ModelList
from epidote_gateway.routing import unserved_stages
from epidote_gateway.scrape_merging import merge
from epidote_gateway.services import Services
from epidote_gateway.writing import encode


class HealthEndpoint:
    """200 while the process can answer: what a liveness probe asks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(scope, receive, send).whole(200, encode(Status(status="ok")))


class ReadyEndpoint:
    """200 while every stage has a routable worker, else 503 naming the stages that have none."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stages = [Stage.PREFILL, Stage.DECODE]
        if self._services.renderer.supports_images:
            stages.append(Stage.ENCODE)
        workers = list(self._services.backend.workers())
        missing = unserved_stages(workers, stages)
        if missing:
            names = ", ".join(stage.value for stage in missing)
            raise ApiError(503, f"no routable worker serves: {names}", code="not_ready")
        counts = RoleCounts.of(workers)
        roles = {role.value: count for role, count in counts.by_role().items()}
        body = encode(Status(status="ready", details={"roles": roles}))
        await Exchange(scope, receive, send).whole(200, body)


class MetricsEndpoint:
    """Prometheus text, of all gateway processes that share this port."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = generate_latest(self._services.metrics.registry)
        if self._services.siblings is not None and (others := await self._services.siblings()):
            body = await asyncio.to_thread(merge, [body, *others])
        headers = ((b"content-type", CONTENT_TYPE_LATEST.encode()),)
        await Exchange(scope, receive, send).whole(200, body, headers)


class ModelsEndpoint:
    """The one model, under each of its names."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._created = int(services.unix_time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = ModelList(data=[self._model(name) for name in self._services.model_names])
        await Exchange(scope, receive, send).whole(200, encode(models))

    def _model(self, name: str) -> Model:
        return Model(
            id=name,
            created=self._created,
            max_model_len=self._services.max_model_len,
            root=self._services.renderer.model_name,
        )


class ModelEndpoint(ModelsEndpoint):
    """The model under one name."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._services.check_model(scope["path_params"]["model"])
        await Exchange(scope, receive, send).whole(200, encode(self._model(name)))
