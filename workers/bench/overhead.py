"""What gateway, RPC and Ray add to the engine: per request and per token, split by stage.

Alternates requests of one token and of many to a running service, and the long one's prompt to an
engine in this process. Prompts are fresh (no prefix hits), one at a time. What is added is judged
against the engine inside the service, by its own report: an engine in another process has other
neighbours on a busy machine, `bare` is for comparison only.

    bare        an engine alone in this process: from the prompt's ids to the last token
    added       all of a request's time that its engine did not report as computing
    client      HTTP on the client's side and the wire: what it saw less the gateway's own time
    frontend    the gateway's own time less what its workers report: parsing, rendering, routing,
                RPC both ways, waiting for a step to begin, detached tokens on their way, writing
    queue       waiting in the workers, as they report it
    engine      computing in the workers, as they report it
    ... of which, measured alone in this process: parse, render, route, rpc (a call and its answer)

    python workers/bench/overhead.py --rounds 100 --json workers/bench/results/overhead.json
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch
from result_file import conditions, write_result
from service import epidote
from streams import quantile

from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_core.worker_view import WorkerView
from epidote_engine.engine import Engine
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import EngineConfig
from epidote_gateway.chat_endpoint import parse_chat
from epidote_gateway.routing import Wanted, choose_route
from epidote_workers.fake_fleet import ask_for, fleet_of
from epidote_workers.in_process_fleet import InProcessFleet

Figures = dict[str, dict[str, float]]


def question(rng: random.Random, words: int) -> str:
    """Fresh words: nothing may come from a cache."""
    return " ".join(f"{rng.randrange(10)} plus {rng.randrange(10)}" for _ in range(words))


def body_of(text: str, num_tokens: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }


def bare(engine: Engine, ids: tuple[int, ...], num_tokens: int, name: str) -> tuple[float, float]:
    """Seconds to the first and to the last token, stepped as a worker does."""
    request = GenerateRequest(
        request_id=name,
        prompt_token_ids=ids,
        sampling=SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True),
    )
    start_s, first_s = time.perf_counter(), 0.0
    engine.add(request)
    while engine.has_work():
        if engine.step() and not first_s:
            first_s = time.perf_counter() - start_s
    return first_s, time.perf_counter() - start_s


async def served(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, float]:
    """One streamed request: the client's times, and what gateway and workers report."""
    start_s, first_s, told = time.perf_counter(), 0.0, {}
    headers = {"x-epidote-timings": "1"}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if not first_s and any(c["delta"].get("content") for c in event["choices"]):
                first_s = time.perf_counter() - start_s
            told = event.get("epidote") or told
    e2e_s = time.perf_counter() - start_s
    queued = sum(stage["queued_ms"] for stage in told["stages"]) / 1e3
    busy = sum(stage["busy_ms"] for stage in told["stages"] if stage["stage"] != "transfer") / 1e3
    moved = sum(stage["busy_ms"] for stage in told["stages"] if stage["stage"] == "transfer") / 1e3
    inside_s = told["total_ms"] / 1e3
    return {
        "ttft": first_s,
        "e2e": e2e_s,
        "client": e2e_s - inside_s,
        "frontend": inside_s - queued - busy - moved,
        "queue": queued,
        "engine": busy,
        "transfer": moved,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50_ms": round(quantile(values, 0.5) * 1e3, 3),
        "p99_ms": round(quantile(values, 0.99) * 1e3, 3),
    }


async def measure(url: str, options: argparse.Namespace) -> Figures:
    engine = Engine(EngineConfig(model="demo", role=Role.ALL, num_kv_blocks=2048))
    processor, rng = PromptProcessor.from_model("demo"), random.Random(options.seed)
    seen: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            seen.setdefault(name, []).append(value)

    async with httpx.AsyncClient(base_url=url, timeout=300.0) as client:
        for number in range(-options.warm_up, options.rounds):
            text = question(rng, options.words)
            messages = [{"role": "user", "content": text}]
            ids = processor.render_chat(messages).token_ids
            first_s, last_s = bare(engine, ids, options.tokens, str(number))
            found = await served(client, body_of(text, options.tokens))
            if number < 0:
                continue
            note(bare_ttft=first_s, bare_e2e=last_s, **found)
            short = await served(client, body_of(question(rng, options.words), 1))
            added = {
                name: run["e2e"] - run["engine"]
                for name, run in (("long", found), ("short", short))
            }
            note(
                added_per_request=added["short"],
                added_per_token=(added["long"] - added["short"]) / max(1, options.tokens - 1),
                **{f"short_{name}": value for name, value in short.items()},
            )
    return {name: spread(values) for name, values in seen.items()}


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    spent = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start_s)
    return spent


async def parts(options: argparse.Namespace) -> Figures:
    """The front end's known parts, each alone: no HTTP, no engine."""
    rng, rounds = random.Random(options.seed), options.rounds
    processor = PromptProcessor.from_model("demo")
    text = question(rng, options.words)
    raw = json.dumps(body_of(text, options.tokens)).encode()
    messages = [{"role": "user", "content": text}]
    with tempfile.TemporaryDirectory() as folder:
        async with fleet_of(Path(folder), e=Role.ENCODE, p=Role.PREFILL, d=Role.DECODE) as fleet:
            views = fleet.client.workers()
            rpc = [await one_call(fleet, number) for number in range(rounds)]
            route = timed(lambda: choose(views, rng), rounds)
    return {
        "parse": spread(timed(lambda: parse_chat(raw), rounds)),
        "render": spread(timed(lambda: processor.render_chat(messages), rounds)),
        "route": spread(route),
        "rpc": spread(rpc),
    }


async def one_call(fleet: InProcessFleet, number: int) -> float:
    """A request of one token to a pretend engine that does both stages: RPC and bookkeeping."""
    request = ask_for(f"call{number}", prompt=16, tokens=1)
    start_s = time.perf_counter()
    try:
        await fleet.ask(request, Route(prefill="p", decode="d"))
    finally:
        spent_s = time.perf_counter() - start_s
    return spent_s


def choose(views: Any, rng: random.Random) -> object:
    wanted = Wanted(
        num_prompt_tokens=100,
        num_choices=1,
        block_size=16,
        block_hashes=(),
        media_keys=(),
        avoid=frozenset(),
    )
    workers: list[WorkerView] = list(views)
    return choose_route(workers, wanted, mine={}, rng=rng, encoder_cache_slack=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--words", type=int, default=8, help="sums in a prompt")
    parser.add_argument("--roles", default="all=1")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--json", type=Path, help="also write a dated result here")
    options = parser.parse_args()
    print(f"# {vars(options)}", file=sys.stderr)
    torch.set_num_threads(1)  # as a worker has
    with epidote("--roles", options.roles, deadline_s=600.0) as url:
        through = asyncio.run(measure(url, options))
    figures: dict[str, Any] = {"through_the_service": through, "alone": asyncio.run(parts(options))}
    added = through["added_per_request"]["p50_ms"]
    figures["goal"] = {"added_per_request_p50_ms": added, "at_most": 5.0, "met": added <= 5.0}
    print(json.dumps(figures, indent=2))
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        write_result(options.json, {**conditions("ray", "torch"), "settings": settings, **figures})


if __name__ == "__main__":
    main()
