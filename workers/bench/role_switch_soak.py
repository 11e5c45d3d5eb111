"""Concurrent streams while a worker changes its role every two seconds, in all six directions.

Every answer is compared with the answer of a quiet fleet: nothing may fail, no token may differ,
and at the end every block, embedding and reference must be accounted for.

    python workers/bench/role_switch_soak.py --streams 32 --seconds 60 --json out.json
"""

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from service import epidote, get_json
from streams import StreamResult, closed_loop, quantile, stream_chat

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene

# Each row is one split of five workers; one worker's role differs from row to row, and the six
# differences are P→D, D→E, E→P, P→E, E→D, D→P: every direction once a round.
SPLITS = (
    {"encode": 1, "prefill": 2, "decode": 2},
    {"encode": 1, "prefill": 1, "decode": 3},  # P→D
    {"encode": 2, "prefill": 1, "decode": 2},  # D→E
    {"encode": 1, "prefill": 2, "decode": 2},  # E→P
    {"encode": 2, "prefill": 1, "decode": 2},  # P→E
    {"encode": 1, "prefill": 1, "decode": 3},  # E→D
    {"encode": 1, "prefill": 2, "decode": 2},  # D→P
)


def workload(seed: int) -> list[dict[str, Any]]:
    """Half questions about pictures, half text; sampled ones are seeded: one right answer each."""
    rng = random.Random(seed)
    bodies: list[dict[str, Any]] = []
    for i in range(24):
        if i % 2:
            picture = encode(draw(sample_scene(rng)), ImageFormat.PNG)
            url = "data:image/png;base64," + base64.b64encode(picture).decode()
            content: Any = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "Describe the picture."},
            ]
        else:
            content = f"What is {rng.randrange(10)} plus {rng.randrange(10)}?"
        bodies.append(
            {
                "model": "demo",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": rng.choice((16, 48, 96)),
                "temperature": 0 if i % 3 else 0.8,
                "seed": i,
                "ignore_eos": True,  # long streams, so that most are under way when a role switches
            }
        )
    return bodies


async def soak(
    url: str, bodies: list[dict[str, Any]], *, streams: int, seconds: float
) -> tuple[list[tuple[int, StreamResult]], list[dict[str, Any]]]:
    done: list[tuple[int, StreamResult]] = []
    switches: list[dict[str, Any]] = []
    end_s = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=120.0) as client:

        async def user(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < end_s:
                index = rng.randrange(len(bodies))
                done.append((index, await stream_chat(client, bodies[index])))

        async def switcher() -> None:
            step = 0
            while time.monotonic() < end_s:
                await asyncio.sleep(2.0)
                step = step % (len(SPLITS) - 1) + 1
                reply = await client.put("/admin/roles", json=SPLITS[step])
                if reply.status_code not in (200, 409):  # 409: a switch was rolled back
                    reply.raise_for_status()
                switches.extend(reply.json()["outcomes"])

        async with asyncio.TaskGroup() as group:
            group.create_task(switcher())
            for number in range(streams):
                group.create_task(user(number))
    return done, switches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    print(f"# seed {options.seed}", file=sys.stderr)
    bodies = workload(options.seed)
    flags = ("--dtype", "float32")  # in bfloat16 a token may depend on its batch
    with epidote("--workers", "5", "--roles", "encode=1,prefill=2,decode=2", *flags) as url:
        quiet, _ = asyncio.run(closed_loop(url, bodies, concurrency=1))
        for result in quiet:
            if result.error:
                raise RuntimeError(f"the quiet fleet already fails: {result.error}")
        done, switches = asyncio.run(
            soak(url, bodies, streams=options.streams, seconds=options.seconds)
        )
        time.sleep(1.0)
        leaks = get_json(f"{url}/admin/conservation", timeout_s=30.0)
    failed = [result.error for _, result in done if result.error]
    wrong = [i for i, r in done if not r.error and r.text != quiet[i].text]
    report: dict[str, Any] = {
        "streams": options.streams,
        "seconds": options.seconds,
        "requests": len(done),
        "failed": len(failed),
        "wrong": len(wrong),
        "leaks": leaks,
        "switches": len(switches),
        "rolled_back": sum(not s["ok"] for s in switches),
        "directions": sorted({f"{s['from_role']}→{s['to_role']}" for s in switches if s["ok"]}),
        "tokens_per_s": sum(r.num_tokens for _, r in done) / options.seconds,
    }
    drains = [s["drain_s"] for s in switches if s["ok"]]
    beyond = [s["switch_s"] + s["verify_s"] for s in switches if s["ok"]]
    for name, values in (("drain_s", drains), ("switch_and_verify_s", beyond)):
        report[f"{name}_p50"], report[f"{name}_p99"] = quantile(values, 0.5), quantile(values, 0.99)
    print(json.dumps(report, indent=2))
    if failed:
        print("first failure:", failed[0], file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({**report, "all_switches": switches}))
    sys.exit(1 if failed or wrong or not leaks["is_sound"] else 0)


if __name__ == "__main__":
    main()
