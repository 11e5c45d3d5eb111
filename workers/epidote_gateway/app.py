"""This file is about putting the gateway together: one FastAPI app from its three collaborators."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random, SystemRandom
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from epidote_gateway.admission import Admission
from epidote_gateway.answers import Answers
from epidote_gateway.api_errors import ApiError
from epidote_gateway.backend import Backend, PromptRenderer
from epidote_gateway.cache.assembly import cache_of
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.model_check import ModelCheck
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.caller import Keyring
from epidote_gateway.fleet_metrics import FleetCollector
from epidote_gateway.generation import Generation
from epidote_gateway.logprobs import TokenTexts
from epidote_gateway.media_loading import MediaLoader
from epidote_gateway.memory_budget import MemoryBudget
from epidote_gateway.metrics import Metrics
from epidote_gateway.openapi import openapi_document
from epidote_gateway.operations import operations
from epidote_gateway.request_scope import RequestScope
from epidote_gateway.services import Services, Siblings
from epidote_gateway.settings import GatewaySettings
from epidote_gateway.shedding import Shedding

TITLE = "Epidote gateway"
VERSION = "0.1.0"  # of the API, not of the package


def create_app(
    backend: Backend,
    renderer: PromptRenderer,
    settings: GatewaySettings | None = None,
    *,
    rng: Random | None = None,
    siblings: Siblings | None = None,
    make_cache: Callable[[CollectorRegistry], ResponseCache | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    unix_time: Callable[[], float] = time.time,
) -> FastAPI:
    """The OpenAI-compatible app. It starts no process and owns nothing of `backend`.

    `siblings` gathers the metrics of other processes behind the same port; this one's are in the
    Prometheus registry `app.state.registry`. `make_cache(registry)` makes the response cache; by
    default the one that `settings` name.

    Serve it with uvloop and httptools; switch uvicorn's own access log off.
    """
    settings = settings or GatewaySettings()
    metrics = Metrics()
    metrics.registry.register(FleetCollector(backend, renderer.model_name))
    rng = rng or SystemRandom()
    answers: Answers = Generation(
        backend, settings, rng=rng, clock=clock, on_lost=metrics.worker_lost
    )
    make_cache = make_cache or partial(cache_of, settings)
    cache = make_cache(metrics.registry)
    if cache is not None:
        cache.second_check = cache.second_check or ModelCheck(answers, renderer)
        answers = CachedAnswers(answers, cache)
    services = Services(
        backend=backend,
        renderer=renderer,
        settings=settings,
        metrics=metrics,
        admission=Admission(settings, metrics, clock),
        memory=MemoryBudget(
            settings.max_memory_bytes,
            retry_after_s=settings.retry_after_s,
            on_change=metrics.request_bytes.set,
        ),
        shedding=Shedding(clock),
        media=MediaLoader(renderer, settings),
        answers=answers,
        texts=TokenTexts(renderer),
        rng=rng,
        clock=clock,
        unix_time=unix_time,
        siblings=siblings,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        if cache is not None:
            await cache.start()
        yield
        if cache is not None:
            await cache.aclose()
        await services.media.aclose()

    app = FastAPI(
        title=TITLE, version=VERSION, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.registry = metrics.registry
    table = list(operations(services))
    if cache is not None:
        from epidote_gateway.cache.cache_operations import cache_operations

        table += cache_operations(services, cache)
    for operation in table:
        app.router.routes.append(Route(operation.path, operation.app, methods=[operation.method]))
    document = openapi_document(table, title=TITLE, version=VERSION)
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(RequestScope, keyring=Keyring(settings), metrics=metrics, clock=clock)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", "x-epidote-cache"],
        )
    return app


async def _http_error(request: Request, error: Any) -> Response:
    """What the framework refuses by itself: unknown paths, wrong methods."""
    codes = {404: "not_found", 405: "method_not_allowed"}
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    api_error = ApiError(
        error.status_code, message, code=codes.get(error.status_code, "http_error")
    )
    return Response(
        api_error.body(),
        status_code=error.status_code,
        headers=error.headers,
        media_type="application/json",
    )
