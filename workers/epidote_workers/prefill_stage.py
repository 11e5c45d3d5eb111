"""This file is about computing a prompt for a decoder elsewhere, and lending it the result."""

import asyncio
from collections.abc import AsyncGenerator

from epidote_core.errors import WorkerLost
from epidote_core.roles import Stage
from epidote_engine.events import KvReady, PrefillDone, RequestFailed
from epidote_engine.sequence import Mode
from epidote_workers.inbox import Item
from epidote_workers.intake import Intake
from epidote_workers.kv_spans import merge_spans
from epidote_workers.media_fetch import MediaFetcher
from epidote_workers.messages import KvSpan, PrefillCall, PrefillItem, PrefillResult
from epidote_workers.parts import Parts
from epidote_workers.request_failures import failure

STALL_S = 300.0  # without any progress; a client gives up sooner, this is against leaks


class PrefillStage:
    """Prompts being computed or lent here."""

    def __init__(self, parts: Parts, fetcher: MediaFetcher) -> None:
        self._parts, self._fetcher = parts, fetcher

    async def prefill(self, call: PrefillCall) -> AsyncGenerator[PrefillItem, None]:
        """Spans as layers of chunks become ready, then the result.

        The KV stays until the stream is closed, or `lease_s`.

        Raises:
            WorkerLost: this worker does not prefill now, or an encoder failed.
            Overloaded, InvalidRequest, ComputeFailed: as the engine or the media say.
        """
        with self._parts.gate.admit(Stage.PREFILL):
            request = self._parts.own(call.request)
            request_id = request.request_id
            inbox = self._parts.inboxes.open(request_id)
            intake = Intake(self._parts, self._fetcher, request, inbox)
            is_lent = False
            try:
                intake.begin(Mode.PREFILL, dict(call.encode), call.addresses)
                blocks: tuple[int, ...] | None = None
                while not is_lent:
                    items = await inbox.take(STALL_S)
                    spans, blocks = _spans(items, blocks)
                    result = _result(items, intake, self._parts.worker_id)
                    is_lent = result is not None
                    yield PrefillItem(spans=spans, result=result)
                await asyncio.sleep(self._parts.settings.lease_s)
                raise WorkerLost("KV was lent too long", worker_id=self._parts.worker_id)
            finally:
                intake.close()
                self._parts.inboxes.close(request_id)
                if is_lent:
                    self._parts.engine.post(lambda engine: engine.release_kv(request_id))
                else:
                    self._parts.engine.post(lambda engine: engine.abort(request_id))


def _result(items: list[Item], intake: Intake, worker_id: str) -> PrefillResult | None:
    for item in items:
        if isinstance(item, RequestFailed):
            raise failure(item, worker_id)
        if isinstance(item, PrefillDone):
            return PrefillResult(
                token_id=item.first.token_id,
                logprob=item.first.logprob,
                num_cached_tokens=item.num_cached_tokens,
                timings=(*intake.prefilled(), item.timing),
            )
    return None


def _spans(
    items: list[Item], sent: tuple[int, ...] | None
) -> tuple[tuple[KvSpan, ...], tuple[int, ...] | None]:
    """Spans for the wire, with the prompt's blocks only where they changed."""
    spans = []
    for ready in merge_spans([item for item in items if isinstance(item, KvReady)]):
        spans.append(
            KvSpan(
                start_token=ready.start_token,
                end_token=ready.end_token,
                first_layer=ready.first_layer,
                end_layer=ready.end_layer,
                block_ids=None if ready.block_ids == sent else ready.block_ids,
            )
        )
        sent = ready.block_ids
    return tuple(spans), sent
