"""This file is about the table of endpoints: paths, methods, bodies, and who answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from epidote_gateway import admin_bodies as bodies
from epidote_gateway import admin_endpoints as admin
from epidote_gateway import expert_endpoints as experts
from epidote_gateway import responses
from epidote_gateway.chat_endpoint import parse_chat, prepare_chat
from epidote_gateway.chat_request import ChatRequest
from epidote_gateway.completion_endpoint import parse_completion, prepare_completion
from epidote_gateway.completion_request import CompletionRequest
from epidote_gateway.services import Services
from epidote_gateway.serving import CompletionEndpoint
from epidote_gateway.status_endpoints import (
    HealthEndpoint,
    MetricsEndpoint,
    ModelEndpoint,
    ModelsEndpoint,
    ReadyEndpoint,
)
from epidote_gateway.token_endpoints import DetokenizeEndpoint, TokenizeEndpoint
from epidote_gateway.token_requests import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. `answer` None: plain text."""

    method: str
    path: str
    summary: str
    app: ASGIApp
    answer: type[Any] | None
    body: type[Any] | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    streams: bool = False


_ANSWER_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 503)
ADMIN_ERRORS = (400, 401, 403, 413, 415, 500, 503, 504)
_BODY_ERRORS = (400, 401, 404, 408, 413, 415)


def operations(services: Services) -> Iterator[Operation]:
    """All of them."""
    yield Operation(
        method="POST",
        path="/v1/chat/completions",
        summary="Answer a conversation of text and images",
        app=CompletionEndpoint(services, parse_chat, prepare_chat),
        body=ChatRequest,
        answer=responses.ChatCompletion,
        errors=_ANSWER_ERRORS,
        streams=True,
    )
    yield Operation(
        method="POST",
        path="/v1/completions",
        summary="Continue one or several prompts",
        app=CompletionEndpoint(services, parse_completion, prepare_completion),
        body=CompletionRequest,
        answer=responses.TextCompletion,
        errors=_ANSWER_ERRORS,
        streams=True,
    )
    yield Operation(
        method="GET",
        path="/v1/models",
        summary="The model under each of its names",
        app=ModelsEndpoint(services),
        answer=responses.ModelList,
        errors=(401,),
    )
    yield Operation(
        method="GET",
        path="/v1/models/{model:path}",  # names of hubs have slashes
        summary="The model under one of its names",
        app=ModelEndpoint(services),
        answer=responses.Model,
        errors=(401, 404),
    )
    yield Operation(
        method="POST",
        path="/tokenize",
        summary="Token ids of a text or a conversation",
        app=TokenizeEndpoint(services),
        body=TokenizeRequest,
        answer=TokenizeResponse,
        errors=_BODY_ERRORS,
    )
    yield Operation(
        method="POST",
        path="/detokenize",
        summary="The text of token ids",
        app=DetokenizeEndpoint(services),
        body=DetokenizeRequest,
        answer=DetokenizeResponse,
        errors=_BODY_ERRORS,
    )
    for path in ("/health", "/healthz", "/livez"):
        yield Operation(
            method="GET",
            path=path,
            summary="Whether the process answers",
            app=HealthEndpoint(),
            answer=bodies.Status,
        )
    yield Operation(
        method="GET",
        path="/readyz",
        summary="Whether every stage has a routable worker",
        app=ReadyEndpoint(services),
        answer=bodies.Status,
        errors=(503,),
    )
    yield Operation(
        method="GET",
        path="/metrics",
        summary="Prometheus metrics",
        app=MetricsEndpoint(services),
        answer=None,
    )
    yield from _admin(services)


def _admin(services: Services) -> Iterator[Operation]:
    yield Operation(
        method="GET",
        path="/admin/fleet",
        summary="Every worker with role, state and load",
        app=admin.AdminEndpoint(services, admin.get_fleet),
        answer=bodies.Fleet,
        errors=ADMIN_ERRORS,
    )
    yield Operation(
        method="GET",
        path="/admin/roles",
        summary="How many workers have each role",
        app=admin.AdminEndpoint(services, admin.get_roles),
        answer=bodies.RoleCounts,
        errors=ADMIN_ERRORS,
    )
    yield Operation(
        method="PUT",
        path="/admin/roles",
        summary="Switch workers until the roles are counted like this",
        app=admin.AdminEndpoint(services, admin.put_roles, bodies.RoleCounts),
        body=bodies.RoleCounts,
        answer=bodies.Switches,
        errors=(*ADMIN_ERRORS, 409),
    )
    yield Operation(
        method="PUT",
        path="/admin/workers/{worker_id}/role",
        summary="Switch one worker's role",
        app=admin.AdminEndpoint(services, admin.put_worker_role, bodies.RoleRequest),
        body=bodies.RoleRequest,
        answer=bodies.Switches,
        errors=(*ADMIN_ERRORS, 404, 409),
    )
    yield Operation(
        method="POST",
        path="/admin/scale",
        summary="Ask for a number of workers",
        app=admin.AdminEndpoint(services, admin.post_scale, bodies.ScaleRequest),
        body=bodies.ScaleRequest,
        answer=bodies.Scaling,
        status=202,
        errors=ADMIN_ERRORS,
    )
    yield Operation(
        method="PUT",
        path="/admin/shed",
        summary="Refuse a share of new requests for a minute",
        app=admin.AdminEndpoint(services, admin.put_shed, bodies.ShedBody),
        body=bodies.ShedBody,
        answer=bodies.ShedBody,
        errors=ADMIN_ERRORS,
    )
    yield Operation(
        method="GET",
        path="/admin/experts",
        summary="How many tokens each expert has computed, and where experts lie",
        app=admin.AdminEndpoint(services, experts.get_experts),
        answer=experts.Experts,
        errors=ADMIN_ERRORS,
    )
    yield Operation(
        method="PUT",
        path="/admin/experts",
        summary="Move the experts of every worker",
        app=admin.AdminEndpoint(
            services,
            experts.put_experts,
            experts.ExpertPlacement,
            max_bytes=experts.MAX_PLACEMENT_BYTES,
        ),
        body=experts.ExpertPlacement,
        answer=experts.Placing,
        status=202,
        errors=(*ADMIN_ERRORS, 404, 409),
    )
    yield Operation(
        method="GET",
        path="/admin/conservation",
        summary="Whether every block, row and lease is accounted for",
        app=admin.AdminEndpoint(services, admin.get_conservation),
        answer=bodies.Conservation,
        errors=ADMIN_ERRORS,
    )
