"""This file is about choosing workers for a request: filter, score, pick. Pure.

Filter: routable, serving the stage, not to be avoided. Score: the cost below, least is best. Pick:
among equals `rng` decides. All thresholds are here:

encode   a cached key first, unless that worker's queue is more than `encoder_cache_slack` media
         longer than the shortest; else the shortest queue, the request's own media counted, which
         spreads them. Dedicated encoders before workers of role `all`; if only those serve encode
         and the prefill worker is one, all media go there (nothing to transfer).
prefill  tokens to compute before this prompt is done: its tokens without the cached prefix, plus
         `queued_prefill_tokens`. Queued and uncached tokens cost the same. A worker that
         also decodes is slowed by its running sequences: `DECODING_SEQUENCE_TOKENS` each.
decode   share of KV blocks in use once this request is in, plus `SEQUENCE_COST` per sequence
         there. A worker that can't hold the request now costs `NO_ROOM` more. The prefill worker,
         if its role is `all`, costs `LOCALITY` less: no KV moves.

Loads lag by one report; `mine` (what this gateway itself has on the way) fills the gap.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from epidote_core.generation import Route
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.worker_view import WorkerView

DECODING_SEQUENCE_TOKENS = 64  # a chunk's worth: decode steps and prefill chunks take turns
SEQUENCE_COST = 0.02  # of all blocks: 50 sequences weigh like a full pool
NO_ROOM = 1.0  # like a full pool: waits for blocks, or preempts somebody
LOCALITY = 0.5  # half a pool: a transfer costs little against a full worker


@dataclass(frozen=True, kw_only=True)
class Underway:
    """What one gateway has sent to a worker and not seen finished."""

    num_media: int = 0
    num_sequences: int = 0
    prefill_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the choice depends on. `block_hashes` name the prompt's full blocks in order."""

    num_prompt_tokens: int
    num_choices: int = 1
    block_size: int = 16
    block_hashes: Sequence[bytes] = ()
    media_keys: Sequence[str] = ()
    avoid: Collection[str] = ()


@dataclass(frozen=True, kw_only=True)
class NobodyServes:
    """No worker for these stages now."""

    stages: tuple[Stage, ...]


def candidates(
    workers: Sequence[WorkerView], stage: Stage, avoid: Collection[str] = ()
) -> list[WorkerView]:
    """Who may get new work of `stage`."""
    return [
        w
        for w in workers
        if w.state is WorkerState.ROUTABLE and w.role.serves(stage) and w.worker_id not in avoid
    ]


def unserved_stages(workers: Sequence[WorkerView], stages: Collection[Stage]) -> tuple[Stage, ...]:
    """Stages without a routable worker, in the order of a request."""
    return tuple(s for s in Stage if s in stages and not candidates(workers, s))


def choose_route(
    workers: Sequence[WorkerView],
    wanted: Wanted,
    *,
    mine: Mapping[str, Underway],
    rng: Random,
    encoder_cache_slack: int = 4,
) -> Route | NobodyServes:
    """The route of one request, or which stages nobody serves."""
    needed = [Stage.PREFILL, Stage.DECODE] + [Stage.ENCODE] * bool(wanted.media_keys)
    able = {stage: candidates(workers, stage, wanted.avoid) for stage in needed}
    missing = tuple(stage for stage in Stage if stage in able and not able[stage])
    if missing:
        return NobodyServes(stages=missing)
    none = Underway()
    prefill = _cheapest(
        [(_prefill_cost(w, wanted, mine.get(w.worker_id, none)), w) for w in able[Stage.PREFILL]],
        rng,
    )
    decode = _cheapest(
        [
            (_decode_cost(w, wanted, mine.get(w.worker_id, none), prefill), w)
            for w in able[Stage.DECODE]
        ],
        rng,
    )
    encode: tuple[tuple[str, str], ...] = ()
    if wanted.media_keys:
        encode = _encoders(able[Stage.ENCODE], wanted, mine, prefill, rng, encoder_cache_slack)
    return Route(prefill=prefill.worker_id, decode=decode.worker_id, encode=encode)


def cached_blocks(worker: WorkerView, block_hashes: Sequence[bytes]) -> int:
    """Length of the prefix that the worker has, in blocks."""
    if not worker.block_hashes:
        return 0
    for number, block in enumerate(block_hashes):
        if block not in worker.block_hashes:
            return number
    return len(block_hashes)


def _prefill_cost(worker: WorkerView, wanted: Wanted, mine: Underway) -> float:
    cached = cached_blocks(worker, wanted.block_hashes) * wanted.block_size
    cost = wanted.num_prompt_tokens - min(cached, wanted.num_prompt_tokens - 1)
    cost += max(worker.load.queued_prefill_tokens, mine.prefill_tokens)
    if worker.role is Role.ALL:
        cost += DECODING_SEQUENCE_TOKENS * _num_sequences(worker, mine)
    return float(cost)


def _decode_cost(worker: WorkerView, wanted: Wanted, mine: Underway, prefill: WorkerView) -> float:
    load = worker.load
    cached = cached_blocks(worker, wanted.block_hashes)
    blocks = -(-wanted.num_prompt_tokens // wanted.block_size) + wanted.num_choices - cached
    used = load.num_kv_blocks - load.num_free_kv_blocks + blocks
    cost = used / load.num_kv_blocks if load.num_kv_blocks else 0.0
    cost += SEQUENCE_COST * _num_sequences(worker, mine)
    if load.num_kv_blocks and blocks > load.num_free_kv_blocks:
        cost += NO_ROOM
    if worker.role is Role.ALL and worker.worker_id == prefill.worker_id:
        cost -= LOCALITY
    return cost


def _num_sequences(worker: WorkerView, mine: Underway) -> int:
    return max(worker.load.num_running + worker.load.num_waiting, mine.num_sequences)


def _encoders(
    able: list[WorkerView],
    wanted: Wanted,
    mine: Mapping[str, Underway],
    prefill: WorkerView,
    rng: Random,
    slack: int,
) -> tuple[tuple[str, str], ...]:
    dedicated = [worker for worker in able if worker.role is Role.ENCODE]
    keys = list(dict.fromkeys(wanted.media_keys))
    if not dedicated and prefill.role is Role.ALL:
        return tuple((key, prefill.worker_id) for key in keys)
    able = dedicated or able
    none = Underway()
    queue = {
        w.worker_id: max(w.load.num_encoding, mine.get(w.worker_id, none).num_media) for w in able
    }
    chosen = []
    for key in keys:
        shortest = min(queue.values())
        holders = [
            w for w in able if key in w.media_keys and queue[w.worker_id] <= shortest + slack
        ]
        pick = _cheapest([(float(queue[w.worker_id]), w) for w in holders or able], rng)
        if not holders:
            queue[pick.worker_id] += 1
        chosen.append((key, pick.worker_id))
    return tuple(chosen)


def _cheapest(costs: list[tuple[float, WorkerView]], rng: Random) -> WorkerView:
    least = min(cost for cost, _ in costs)
    equals = [worker for cost, worker in costs if cost <= least]
    return equals[0] if len(equals) == 1 else rng.choice(equals)
