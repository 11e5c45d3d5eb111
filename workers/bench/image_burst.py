"""What a burst of images does to text, and what more encoders do for a request of eight images.

1. Time to first token of text requests, quiet and during an image burst, on a fleet with a separate
   encoder and on the same number of workers with role `all`.
2. Time to first token of a request with eight pictures, with one, two and three encoders.

Quiet and burst alternate in short phases, so that a machine that is busy with other things is so
in both; still the figures of a loaded machine say little, and the load average is written down.

    python workers/bench/image_burst.py --json workers/bench/results/image_burst.json
    python workers/bench/image_burst.py --only burst --rounds 8 --seconds 5
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
from result_file import conditions, write_result
from service import epidote
from streams import quantile, stream_chat

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene


def image_body(rng: random.Random, num_images: int) -> dict[str, Any]:
    """Fresh pictures each time: nothing may come from a cache."""
    parts: list[dict[str, Any]] = []
    for _ in range(num_images):
        data = base64.b64encode(encode(draw(sample_scene(rng)), ImageFormat.PNG)).decode()
        url = f"data:image/png;base64,{data}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    parts.append({"type": "text", "text": "Describe the pictures."})
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 4,
        "temperature": 0,
    }


def text_body(rng: random.Random) -> dict[str, Any]:
    question = f"What is {rng.randrange(10)} plus {rng.randrange(10)}?"
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 4,
        "temperature": 0,
    }


async def text_ttft(
    url: str, *, seconds: float, rate_rps: float, burst_rps: float, images: int, seed: int
) -> list[float]:
    """Open loop: text at `rate_rps`; beside it image requests at `burst_rps` (0: quiet)."""
    rng = random.Random(seed)
    pictures = [image_body(rng, images) for _ in range(int(burst_rps * seconds))]
    ttfts: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=120.0) as client:
        start_s = time.monotonic()

        async def at(offset_s: float, body: dict[str, Any], keep: bool) -> None:
            await asyncio.sleep(max(0.0, start_s + offset_s - time.monotonic()))
            result = await stream_chat(client, body)
            if result.error:
                raise RuntimeError(result.error)
            if keep:
                ttfts.append(result.ttft_s)

        async with asyncio.TaskGroup() as group:
            for i in range(int(seconds * rate_rps)):
                group.create_task(at(i / rate_rps, text_body(rng), True))
            for i, body in enumerate(pictures):
                group.create_task(at(i / burst_rps, body, False))
    return ttfts


def burst_figures(flags: list[str], options: argparse.Namespace) -> dict[str, float]:
    quiet: list[float] = []
    burst: list[float] = []
    with epidote(*flags) as url:
        for turn in range(options.rounds):  # alternate, so that a slow minute hits both
            for rate, seen in ((0.0, quiet), (options.burst_rps, burst)):
                seen += asyncio.run(
                    text_ttft(
                        url,
                        seconds=options.seconds,
                        rate_rps=options.text_rps,
                        burst_rps=rate,
                        images=options.images,
                        seed=options.seed + turn,
                    )
                )
    return {
        "quiet_p50_s": quantile(quiet, 0.5),
        "quiet_p95_s": quantile(quiet, 0.95),
        "burst_p50_s": quantile(burst, 0.5),
        "burst_p95_s": quantile(burst, 0.95),
        "ratio_p50": quantile(burst, 0.5) / quantile(quiet, 0.5),
        "ratio_p95": quantile(burst, 0.95) / quantile(quiet, 0.95),
    }


def encoder_figures(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    figures = {}
    for num_encoders in (1, 2, 3):
        rng = random.Random(options.seed)
        flags = ["--workers", str(num_encoders + 2)]
        flags += ["--roles", f"encode={num_encoders},prefill=1,decode=1"]

        async def eight_images(url: str, rng: random.Random = rng) -> list[float]:
            async with httpx.AsyncClient(base_url=url, timeout=120.0) as client:
                results = [await stream_chat(client, image_body(rng, 8)) for _ in range(20)]
            failed = [result.error for result in results if result.error]
            if failed:
                raise RuntimeError(failed[0])
            return [result.ttft_s for result in results[2:]]

        with epidote(*flags) as url:
            ttfts = asyncio.run(eight_images(url))
        figures[str(num_encoders)] = {
            "ttft_p50_s": quantile(ttfts, 0.5),
            "ttft_p95_s": quantile(ttfts, 0.95),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text-rps", type=float, default=5.0)
    parser.add_argument("--burst-rps", type=float, default=4.0)
    parser.add_argument("--images", type=int, default=4, help="pictures in each burst request")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--only", choices=("burst", "encoders"), help="one of the two questions")
    parser.add_argument("--json", type=Path, help="also write a dated result here")
    options = parser.parse_args()
    print(f"# {vars(options)}", file=sys.stderr)
    report: dict[str, Any] = {}
    if options.only != "encoders":
        split = ["--workers", "3", "--roles", "encode=1,prefill=1,decode=1"]
        report["text_ttft_disaggregated_1e1p1d"] = burst_figures(split, options)
        whole = ["--workers", "1", "--roles", "all=1"]
        report["text_ttft_one_worker_all"] = burst_figures(whole, options)
    if options.only != "burst":
        report["eight_images_by_encoders"] = encoder_figures(options)
    print(json.dumps(report, indent=2))
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        write_result(options.json, {**conditions("ray", "torch"), "settings": settings, **report})


if __name__ == "__main__":
    main()
