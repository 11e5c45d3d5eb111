"""This file is about the cache's rows in the table of endpoints."""

from collections.abc import Iterator
from typing import Any

from epidote_gateway.cache import cache_bodies as bodies
from epidote_gateway.cache import cache_endpoints as endpoints
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.operations import ADMIN_ERRORS, Operation
from epidote_gateway.services import Services


def cache_operations(services: Services, cache: ResponseCache) -> Iterator[Operation]:
    """All of them."""

    def row(
        method: str,
        path: str,
        summary: str,
        handler: endpoints.Handler,
        answer: type[Any],
        body: type[Any] | None = None,
        *more_errors: int,
    ) -> Operation:
        return Operation(
            method=method,
            path=path,
            summary=summary,
            app=endpoints.CacheEndpoint(services, cache, handler, body),
            body=body,
            answer=answer,
            errors=(*ADMIN_ERRORS, *more_errors),
        )

    admin = "/admin/cache"
    yield row("GET", admin, "What the cache holds", endpoints.get_stats, bodies.CacheStats)
    yield row(
        "GET", f"{admin}/policy", "The policy in force", endpoints.get_policy, bodies.PolicyBody
    )
    yield row(
        "PUT",
        f"{admin}/policy",
        "Put a policy in force, without restart or loss",
        endpoints.put_policy,
        bodies.PolicyBody,
        bodies.PolicyBody,
    )
    yield row(
        "POST",
        f"{admin}/lookup",
        "What is near a text, and what would refuse it",
        endpoints.post_lookup,
        bodies.LookupAnswer,
        bodies.LookupRequest,
    )
    yield row(
        "GET",
        f"{admin}/entries/{{entry_id}}",
        "One entry with its answer",
        endpoints.get_entry,
        bodies.EntryAnswer,
        None,
        404,
    )
    yield row(
        "DELETE",
        f"{admin}/entries/{{entry_id}}",
        "Evict one entry",
        endpoints.delete_entry,
        bodies.Invalidated,
        None,
        404,
    )
    yield row(
        "POST",
        f"{admin}/invalidate",
        "Remove matching entries, or count them",
        endpoints.post_invalidate,
        bodies.Invalidated,
        bodies.InvalidateRequest,
    )
    yield row(
        "POST", f"{admin}/flush", "Remove every entry", endpoints.post_flush, bodies.Invalidated
    )
    yield row(
        "PUT",
        f"{admin}/pressure",
        "The planner's pressure, 0 to 1",
        endpoints.put_pressure,
        bodies.PressureBody,
        bodies.PressureBody,
    )
    yield row(
        "POST",
        f"{admin}/feedback",
        "Report a wrong hit of anybody's",
        endpoints.post_admin_feedback,
        bodies.Feedback,
        bodies.FeedbackRequest,
        404,
    )
    yield row(
        "POST",
        "/v1/cache/feedback",
        "Report a wrong hit that the caller got",
        endpoints.post_feedback,
        bodies.Feedback,
        bodies.FeedbackRequest,
        404,
    )
