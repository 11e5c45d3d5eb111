"""This file is about what an engine says of itself: load, cache contents, and sound bookkeeping."""

import time

from epidote_core.worker_view import WorkerLoad
from epidote_engine.blocks import BlockPool
from epidote_engine.engine_experts import EngineExperts
from epidote_engine.events import CacheChanges
from epidote_engine.media_needs import MediaNeeds
from epidote_engine.pools import KvPool
from epidote_engine.requests import Requests
from epidote_engine.rows import BatchRows


class EngineReports(EngineExperts):
    """The part of `Engine` that only looks; `Engine` makes what it looks at."""

    kv_pool: KvPool
    _blocks: BlockPool
    _needs: MediaNeeds
    _requests: Requests
    _rows: BatchRows

    def load(self) -> WorkerLoad:
        """Queues and memory now."""
        scheduler, now_s = self._scheduler, time.perf_counter()
        waiting = [*scheduler.waiting, *scheduler.reserving]
        unfinished = [
            len(seq.token_ids) - seq.num_computed
            for seq in (*scheduler.waiting, *scheduler.running)
            if not seq.is_decoding
        ]
        return WorkerLoad(
            num_waiting=len(waiting),
            num_running=len(scheduler.running),
            num_encoding=len(self._encode_queue) + self._media.num_filling,
            queued_prefill_tokens=sum(unfinished),
            num_kv_blocks=self._blocks.num_blocks,
            num_free_kv_blocks=self._blocks.num_free,
            num_media_rows=self._media.num_rows,
            num_free_media_rows=self._media.num_free,
            num_preemptions=scheduler.num_preemptions,
            prefix_hit_tokens=scheduler.hit_tokens,
            prefix_query_tokens=scheduler.query_tokens,
            ttft_s=self._requests.ttft.mean(now_s),
            tpot_s=self._requests.tpot.mean(now_s),
        )

    def kv_scales(self) -> tuple[tuple[float, ...], ...]:
        """What this rank's KV codes count for (`kv_scales`): layer by layer, keys, then values.

        One tuple of layers · 2 · kv_heads numbers; () for a cache without codes, or a role without
        a language model.
        """
        runner = self._parts.runner
        if runner is None or not self.kv_pool.has_codes:
            return ()
        attentions = [layer.attention for layer in runner.model.layers]
        scales = [scale for a in attentions for scale in (a.k_scale, a.v_scale)]
        return (tuple(x for scale in scales if scale is not None for x in scale.tolist()),)

    def take_cache_changes(self) -> CacheChanges:
        """Names that became reusable or ceased to be since the last call."""
        blocks, media = self._blocks.take_changes(), self._media.take_changes()
        return CacheChanges(
            blocks_added=blocks[0],
            blocks_removed=blocks[1],
            media_added=media[0],
            media_removed=media[1],
        )

    def conservation_errors(self) -> list[str]:
        """Every block, media row, batch row and reference accounted for; [] when sound."""
        found = self._scheduler.errors() + self._media.errors()
        sequences = set(self._scheduler.sequences())
        strangers = sequences ^ self._requests.sequences()
        if strangers:
            found.append(f"{len(strangers)} sequences without request or the reverse")
        found += self._needs.errors(sequences)
        found += self._rows.errors(self._scheduler.running)
        runner = self._parts.runner
        parked = {seq for seq in sequences if seq.parked}
        if runner is not None and set(runner.parked) != parked:
            found.append("parked sequences and saved KV disagree")
        return found
