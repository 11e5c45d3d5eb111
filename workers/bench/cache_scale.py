"""This bench is about the cache at its size: 100,000 entries in one partition, on one core.

Time to load them from SQLite and to build the graph, memory an entry, the search alone and beside
an embedder that is never idle, recall against exact search, and what a look-up costs from
fingerprint to verdict. The entries' vectors are clustered random ones (questions repeat their
topics); every timed look-up embeds a real text with the real sentence model.

Each time is given twice: on the clock, and in CPU seconds, which other programs on the machine
don't lengthen (they do slow caches and memory).

    OMP_NUM_THREADS=1 python workers/bench/cache_scale.py --output results/cache_scale.json
"""

import argparse
import asyncio
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from result_file import conditions, write_result

from epidote_core.generation import FinishReason, TokenChunk
from epidote_gateway.answers import Facts
from epidote_gateway.cache.admission import ENTRY_BYTES
from epidote_gateway.cache.answer_codec import encode_answer
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.fakes import CountingAnswers, make_job
from epidote_gateway.cache.fingerprint import Asked, fingerprint
from epidote_gateway.cache.lineage import Lineages
from epidote_gateway.cache.lookup import look_up
from epidote_gateway.cache.meaning.sentence_meaning import SentenceMeaning
from epidote_gateway.cache.policy import Precision, parse_policy
from epidote_gateway.cache.protocols import Document, Vectors
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore

DIMENSIONS, TOPICS = 384, 2000
PUT_AT_ONCE = 500
ANSWER_TOKENS = 60


def clustered(count: int, rng: np.random.Generator) -> Vectors:
    """Unit vectors around topics, as questions lie: cosine about 0.7 within a topic."""
    topics = rng.standard_normal((TOPICS, DIMENSIONS), np.float32)
    rows = topics[rng.integers(0, TOPICS, count)]
    rows = rows + 0.65 * rng.standard_normal((count, DIMENSIONS), np.float32)
    found: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


Times = list[tuple[float, float]]  # seconds on the clock, CPU seconds


def percentiles(samples: Times) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 in milliseconds."""
    found = {}
    for name, column in (("clock", 0), ("cpu", 1)):
        p50, p95, p99 = np.percentile([sample[column] * 1e3 for sample in samples], [50, 95, 99])
        found[name] = {f"p{n}_ms": round(p, 3) for n, p in ((50, p50), (95, p95), (99, p99))}
    return found


class Stopwatch:
    """`with` one around the work; `cpu` is time.thread_time or time.process_time."""

    def __init__(self, times: Times, cpu: Callable[[], float]) -> None:
        self._times, self._cpu = times, cpu

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), self._cpu()

    def __exit__(self, *error: object) -> None:
        now = time.perf_counter(), self._cpu()
        self._times.append((now[0] - self._begun[0], now[1] - self._begun[1]))


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def fill(store: SqliteStore, vectors: Vectors, asked: Asked, vectors_name: str) -> None:
    body = encode_answer(
        TokenChunk(
            index=0,
            token_ids=(number,),
            text="word ",
            finish_reason=FinishReason.STOP if number == ANSWER_TOKENS - 1 else None,
        )
        for number in range(ANSWER_TOKENS)
    )
    for start in range(0, len(vectors), PUT_AT_ONCE):
        batch = []
        for number in range(start, min(start + PUT_AT_ONCE, len(vectors))):
            text = f"a question of some fifty letters, that is number {number}"
            entry = Entry(
                entry_id=f"{number:032x}",
                exact=number.to_bytes(16),
                context=asked.context,
                after=number.to_bytes(16, "little"),
                category="default",
                is_named=False,
                tenant="",
                model="m",
                text=text,
                media=(),
                embedder=vectors_name,
                created_s=time.time(),
                saved_s=1.0,
                max_tokens=100,
                prompt_tokens=20,
                num_tokens=ANSWER_TOKENS,
                total_tokens=ANSWER_TOKENS,
                is_truncated=False,
                num_bytes=ENTRY_BYTES + len(body) + len(text) + 4 * DIMENSIONS,
            )
            vector = vectors[number].tobytes()
            batch.append(
                (
                    Document(
                        entry_id=entry.entry_id, facts=entry.facts(), vector=vector, body=body
                    ),
                    1e6,
                )
            )
        await store.put_all(batch)


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(options.seed)
    spec = {
        "limits": {"maxEntries": 10**6, "maxBytes": 1 << 34},
        "embedder": {"precision": options.precision},
        "categories": [{"name": "default", "threshold": 0.9, "ttlSeconds": 1e6}],
    }
    policy = parse_policy(spec)
    meaning = SentenceMeaning()
    embedder = await meaning.embedder(policy)
    name = f"{embedder.name}/{policy.embedder.precision}"
    asked = fingerprint(make_job("x"), policy, Lineages())
    assert isinstance(asked, Asked)
    vectors = clustered(options.entries, rng)
    store = SqliteStore(folder / "answers.sqlite3")
    fill_s = time.perf_counter()
    await fill(store, vectors, asked, name)
    fill_s = time.perf_counter() - fill_s
    before = resident_bytes()
    started_s = time.perf_counter()
    cache = ResponseCache(policy, Collaborators(meaning=meaning, store=store, rng=Random(1)))
    await cache.loaded()
    load_s = time.perf_counter() - started_s
    catalog = cache.state.catalog
    partitions = list(catalog._partitions.values())
    build_s = time.perf_counter()
    for partition in partitions:
        while options.entries > 10_000 and not (
            partition.is_graph and not partition.wants_building
        ):
            await asyncio.sleep(0.2)
    build_s = time.perf_counter() - build_s
    resident = resident_bytes() - before
    queries = vectors[rng.integers(0, len(vectors), options.queries)]
    queries = queries + 0.02 * rng.standard_normal(queries.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)

    def search(query: Any) -> Any:
        return catalog.near(asked.context, "default", query, 8)

    alone: Times = []
    for query in queries:
        with Stopwatch(alone, time.thread_time):
            search(query)
    same = 0
    for query in queries[:500]:
        best = int((vectors @ query).argmax())
        same += search(query)[0][0].exact == best.to_bytes(16)
    stop = asyncio.Event()

    async def keep_embedding() -> None:
        while not stop.is_set():
            await embedder.embed(["what is the opening time of the shop in the main street"])

    embedding = asyncio.create_task(keep_embedding())
    beside: Times = []
    for query in queries:
        await asyncio.sleep(0.001)
        with Stopwatch(beside, time.thread_time):
            search(query)
    stop.set()
    await embedding
    misses: Times = []
    embeds: Times = []
    hits: Times = []
    for number in range(options.lookups):
        text = f"how do I change the delivery address of my order, case {number}"
        with Stopwatch(embeds, time.process_time):
            await embedder.embed([text])
        job = make_job(text + " please")
        with Stopwatch(misses, time.process_time):
            found = await look_up(cache.state, job)
        assert found.outcome.status == "miss"
    answers = CachedAnswers(CountingAnswers(), cache)
    job = make_job("a question that is asked again and again")
    for _ in range(options.lookups + 1):
        with Stopwatch(hits, time.process_time):
            async for _item in answers.stream(job, Facts()):
                pass
    del hits[0]  # the first was a miss
    report = {
        "bench": "cache_scale",
        "conditions": conditions("usearch", "onnxruntime", "numpy"),
        "entries": options.entries,
        "precision": options.precision,
        "seed": options.seed,
        "fill_store_s": round(fill_s, 1),
        "load_s": round(load_s, 1),
        "build_graph_s": round(build_s, 1),
        "store_mib": round((folder / "answers.sqlite3").stat().st_size / 2**20, 1),
        "index_bytes_per_entry": round(catalog.index_bytes / options.entries),
        "resident_bytes_per_entry": round(resident / options.entries),
        "search_alone": percentiles(alone),
        "search_beside_a_busy_embedder": percentiles(beside),
        "nearest_found_ratio": same / min(500, options.queries),
        "embed_one_text": percentiles(embeds),
        "look_up_miss_embedding_included": percentiles(misses),
        "exact_hit_answer_included": percentiles(hits),
    }
    await cache.aclose()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--lookups", type=int, default=300)
    parser.add_argument("--precision", choices=list(Precision), default="Float32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(measure(options, Path(folder)))
    print(json.dumps(report, indent=2))
    if options.output:
        write_result(options.output, report)


if __name__ == "__main__":
    main()
