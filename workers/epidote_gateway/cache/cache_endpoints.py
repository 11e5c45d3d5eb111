"""This file is about the endpoints of the response cache: `/admin/cache/...` and feedback."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from epidote_gateway.admin_endpoints import MAX_BODY_BYTES
from epidote_gateway.api_errors import ApiError, bad_field
from epidote_gateway.cache import cache_bodies as bodies
from epidote_gateway.cache.answer_codec import decode_answer
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, InvalidPolicy
from epidote_gateway.cache.policy_file import policy_from
from epidote_gateway.cache.protocols import Category
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.cache.selection import Selection
from epidote_gateway.cache.store_errors import StoreUnavailable
from epidote_gateway.http_exchange import Exchange
from epidote_gateway.parsing import parse
from epidote_gateway.request_scope import caller_of
from epidote_gateway.services import Services
from epidote_gateway.writing import encode

Handler = Callable[[ResponseCache, str, Any], Awaitable[Any]]
NUM_EXAMPLES = 20
SLICE = 64  # partitions searched between two requests


class CacheEndpoint:
    """An ASGI application: `handler(cache, id in the path or tenant of the caller, body)`."""

    def __init__(
        self,
        services: Services,
        cache: ResponseCache,
        handler: Handler,
        body: type[Any] | None = None,
    ) -> None:
        self._services = services
        self._cache = cache
        self._handler = handler
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        body = None
        if self._body is not None:
            limit = self._services.settings.max_body_bytes
            limit = limit if self._body is bodies.PolicyBody else MAX_BODY_BYTES
            body = parse(await exchange.read_json_body(limit), self._body)
        which = scope.get("path_params", {}).get("entry_id") or caller_of(scope).tenant
        limit_s = self._services.settings.admin_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._cache.start()
                answer = await self._handler(self._cache, which, body)
        except TimeoutError as error:
            raise ApiError(504, f"not done within {limit_s:g} s", code="timeout") from error
        except StoreUnavailable as error:
            raise ApiError(503, str(error), code="cache_store_unavailable") from error
        is_pending = isinstance(answer, bodies.Invalidated) and answer.pending > 0
        await exchange.whole(202 if is_pending else 200, encode(answer))


async def get_stats(cache: ResponseCache, which: str, body: None) -> bodies.CacheStats:
    """What there is, and what is in force."""
    state = cache.state
    policy = state.policy
    shown = [*policy.categories]
    if not any(category.name == DEFAULT_CATEGORY for category in shown):
        shown.append(policy.category(DEFAULT_CATEGORY))
    return bodies.CacheStats(
        enabled=policy.enabled,
        is_loaded=cache.has_loaded,
        entries=len(state.catalog),
        bytes=state.catalog.num_bytes,
        index_bytes=state.catalog.index_bytes,
        partitions=state.catalog.num_partitions,
        pressure=state.relaxation.pressure(policy),
        signal=state.relaxation.signal(),
        vectors=state.judges.vectors,
        categories={c.name: bodies.CategoryStats.of(state, c) for c in shown},
    )


async def get_policy(cache: ResponseCache, which: str, body: None) -> bodies.PolicyBody:
    """The policy in force, defaults filled in."""
    return bodies.PolicyBody(spec=cache.policy.model_dump(mode="json", by_alias=True))


async def put_policy(
    cache: ResponseCache, which: str, body: bodies.PolicyBody
) -> bodies.PolicyBody:
    """Put another policy in force; entries stay."""
    try:
        resource = {"spec": body.spec, "kind": body.kind, "apiVersion": body.api_version}
        policy = policy_from(resource)
        await cache.put_policy(policy)
    except InvalidPolicy as error:
        cache.state.metrics.policy_failures.inc()
        text = str(error)
        text = f"spec.{text}" if text.startswith("embedder.") else text
        field = text.partition(":")[0]
        raise ApiError(400, text, code="invalid_policy", param=field) from error
    return await get_policy(cache, which, None)


async def get_entry(cache: ResponseCache, entry_id: str, body: None) -> bodies.EntryAnswer:
    """One entry with its answer."""
    state = cache.state
    entry = state.catalog.get(entry_id)
    data = None if entry is None else await state.keeper.body(entry_id)
    if entry is None or data is None:
        raise _unknown(entry_id)
    texts: dict[int, list[str]] = {}
    for chunk in decode_answer(data):
        texts.setdefault(chunk.index, []).append(chunk.text)
    return bodies.EntryAnswer(
        entry=bodies.EntryView.of(entry, state.unix_time()),
        choices=["".join(texts[index]) for index in sorted(texts)],
    )


async def delete_entry(cache: ResponseCache, entry_id: str, body: None) -> bodies.Invalidated:
    """Evict one entry."""
    entry = cache.state.catalog.get(entry_id)
    if entry is None or not cache.evict(entry_id):
        raise _unknown(entry_id)
    return bodies.Invalidated(
        num_entries=1,
        num_bytes=entry.num_bytes,
        dry_run=False,
        examples=[entry_id],
        pending=await cache.removed(),
    )


async def post_lookup(
    cache: ResponseCache, which: str, body: bodies.LookupRequest
) -> bodies.LookupAnswer:
    """What is near a text, and why it would or would not be served. Nothing is counted."""
    state = cache.state
    judges = state.judges
    vector = (await judges.embedder.embed([body.text]))[0]
    found: Category = judges.classifier.classify(vector, body.text)
    category = judges.policy.category(found.name)
    threshold = state.bounds(category, body.tenant or "").threshold
    wanted = Selection(tenant=body.tenant, model=body.model)
    near = []
    for number, part in enumerate(state.catalog.nearest(vector, body.limit)):
        near += [
            (entry, cosine)
            for entry, cosine in part
            if wanted.matches(entry, state.unix_time())
            and entry.context.hex().startswith(body.context or "")
        ]
        near = sorted(near, key=lambda pair: -pair[1])[: body.limit]
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    neighbours = []
    for entry, similarity in near:
        refusal = judges.guards_of(category.name).check(body.text, entry.text)
        neighbours.append(
            bodies.Neighbour(
                entry=bodies.EntryView.of(entry, state.unix_time()),
                similarity=round(similarity, 6),
                is_near_enough=similarity >= threshold and entry.category == found.name,
                refused_by=None if refusal is None else refusal.reason.value,
                detail="" if refusal is None else refusal.detail,
            )
        )
    return bodies.LookupAnswer(
        category=found.name,
        category_similarity=round(found.similarity, 6),
        threshold=threshold,
        is_enabled=category.enabled,
        num_contexts=len({entry.context for entry, _ in near}),
        neighbours=neighbours,
    )


async def post_invalidate(
    cache: ResponseCache, which: str, body: bodies.InvalidateRequest
) -> bodies.Invalidated:
    """Remove what matches, or with `dry_run` only count it."""
    selection = body.selection()
    name, shelves = body.category, cache.state.catalog.shelves
    if name is not None and not cache.policy.knows(name) and not len(shelves.get(name, ())):
        known = ", ".join(sorted({c.name for c in cache.policy.categories} | {DEFAULT_CATEGORY}))
        raise bad_field("category", f"no category {name[:64]!r}; there are: {known}")
    if selection == Selection():
        raise bad_field(None, "give at least one field to match; /admin/cache/flush removes all")
    return await _invalidate(cache, selection, body.dry_run)


async def post_flush(cache: ResponseCache, which: str, body: None) -> bodies.Invalidated:
    """Remove everything; answers under way will not be kept either."""
    return await _invalidate(cache, Selection(), False)


async def _invalidate(
    cache: ResponseCache, selection: Selection, dry_run: bool
) -> bodies.Invalidated:
    chosen = await cache.invalidate(selection, dry_run=dry_run)
    return bodies.Invalidated(
        num_entries=len(chosen),
        num_bytes=sum(entry.num_bytes for entry in chosen),
        dry_run=dry_run,
        examples=[entry.entry_id for entry in chosen[:NUM_EXAMPLES]],
        pending=0 if dry_run else await cache.removed(),
    )


async def put_pressure(
    cache: ResponseCache, which: str, body: bodies.PressureBody
) -> bodies.PressureBody:
    """The planner's signal; forgotten after a minute unless repeated."""
    cache.tell_pressure(body.pressure)
    return body


async def post_admin_feedback(
    cache: ResponseCache, which: str, body: bodies.FeedbackRequest
) -> bodies.Feedback:
    """A hit was wrong, whoever's it was."""
    return await _feedback(cache, body, None)


async def post_feedback(
    cache: ResponseCache, tenant: str, body: bodies.FeedbackRequest
) -> bodies.Feedback:
    """A hit that the caller got was wrong. Where tenants share answers, one's word must not take
    them from the others."""
    if tenant and not cache.policy.tenants.isolated:
        raise ApiError(
            403,
            "tenants share answers here: only an administrator may report one as wrong, at"
            " /admin/cache/feedback",
            code="shared_cache",
        )
    return await _feedback(cache, body, tenant)


async def _feedback(
    cache: ResponseCache, body: bodies.FeedbackRequest, tenant: str | None
) -> bodies.Feedback:
    threshold = await cache.report_wrong(body.id, tenant)
    if threshold is None:
        raise _unknown(body.id)
    return bodies.Feedback(category_threshold=threshold)


def _unknown(entry_id: str) -> ApiError:
    return ApiError(404, f"no cache entry {entry_id[:64]!r}", code="entry_not_found", param="id")
