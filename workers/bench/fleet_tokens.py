"""Tokens per second from a worker process with a pretend engine to a client, by `FleetClient`.

python workers/bench/fleet_tokens.py --streams 32 --tokens 2000 [--split]
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import uvloop

from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import Role, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_workers.client import FleetClient
from epidote_workers.local_process import LocalProcess
from epidote_workers.worker_process import FakeSettings, ProcessSettings
from epidote_workers.worker_settings import WorkerSettings


async def measure(streams: int, tokens: int, split: bool) -> dict[str, float]:
    roles = {"p": Role.PREFILL, "d": Role.DECODE} if split else {"a": Role.ALL}
    route = Route(prefill="p", decode="d") if split else Route(prefill="a", decode="a")
    with tempfile.TemporaryDirectory() as directory:
        workers = [
            LocalProcess(
                ProcessSettings(
                    worker_id=worker_id,
                    engine=EngineConfig(
                        model="pretend",
                        role=role,
                        num_kv_blocks=streams * (tokens // 16 + 8),
                        max_num_seqs=streams,
                    ),
                    worker=WorkerSettings(socket_dir=Path(directory)),
                    fake=FakeSettings(),
                )
            )
            for worker_id, role in roles.items()
        ]
        client = FleetClient()
        try:
            for worker in workers:
                await worker.start()
            client.update_members([(w.worker_id, w.address) for w in workers])
            while not all(v.state is WorkerState.ROUTABLE for v in client.workers()):
                await asyncio.sleep(0.01)
            firsts: list[float] = []

            async def one(number: int, count: int) -> int:
                request = GenerateRequest(
                    request_id=str(number),
                    prompt_token_ids=tuple(range(64)),
                    sampling=SamplingParams(max_tokens=count),
                    cache_salt=str((number, count)),
                )
                seen, asked_s = 0, time.perf_counter()
                async for chunks in client.generate(request, route):
                    if not seen:
                        firsts.append(time.perf_counter() - asked_s)
                    seen += sum(len(chunk.token_ids) for chunk in chunks)
                return seen

            for number in range(20):
                await one(number, 2)
            firsts.sort()
            first_s = firsts[len(firsts) // 2]
            start_s = time.perf_counter()
            total = sum(await asyncio.gather(*(one(n, tokens) for n in range(streams))))
            spent_s = time.perf_counter() - start_s
        finally:
            await client.stop()
            for worker in workers:
                await worker.stop()
    return {"tokens_per_s": round(total / spent_s), "quiet_first_token_ms": first_s * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--split", action="store_true")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(options.streams, options.tokens, options.split))
    print(json.dumps({**vars(options), **found}, indent=2))


if __name__ == "__main__":
    main()
