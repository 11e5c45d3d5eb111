"""Replays real traces and counts at the server what arrived: requests, tokens, images, outputs.

    python loadgen/bench/replay_exactness.py azure PATH/AzureLLMInferenceTrace_conv.csv --speed 60
    python loadgen/bench/replay_exactness.py servegen PATH/mm_image_1day_generated.csv.gz \
        --start 43200 --end 43260

The server counts words as tokens (which is what the common tokenizers make of them), decodes every
picture and counts its grid. Prints one JSON object; exit code 1 unless everything is equal.
"""  # noqa: INP001

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from epidote_loadgen.config.building import build_plan
from epidote_loadgen.config.loading import check
from epidote_loadgen.config.yaml_source import YamlSource
from epidote_loadgen.pictures import decode
from epidote_loadgen.runner.running import run
from epidote_loadgen.traces.trace_window import Trace

SIDE_PX = 28


def count(body: dict[str, Any]) -> dict[str, Any]:
    """What a server with that tokenizer would charge."""
    content = body["messages"][-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    words = sum(len(part["text"].split()) for part in parts if part["type"] == "text")
    images = []
    for part in parts:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].split(",", 1)[1])
            width, height = decode(data).size
            images.append(width * height // SIDE_PX**2)
    return {"words": words, "images": images, "output": body["max_tokens"]}


class CountingServer:
    """Remembers every body's counts by request id; answers at once with one token."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def close(self) -> None:
        for writer in self.open.values():
            writer.close()
        await asyncio.gather(*self.open, return_exceptions=True)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open[task] = writer
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            fields = dict(
                line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
            )
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            if body:
                self.bodies[fields["x-request-id"]] = body
            event = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
            answer = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
            )
            await writer.drain()
        del self.open[task]
        writer.close()


def serve(pipe: "Connection[Any, Any]") -> None:
    """A process: tells its port, and at the end what it counted."""

    async def main() -> None:
        counting = CountingServer()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        server = await asyncio.start_server(counting.talk, "127.0.0.1", 0, limit=1 << 20)
        pipe.send(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        await counting.close()
        # Counted after the run: decoding pictures takes the client's cores otherwise.
        pipe.send({key: count(json.loads(body)) for key, body in counting.bodies.items()})

    asyncio.run(main())


@contextmanager
def server() -> Iterator[tuple[int, "Connection[Any, Any]", Any]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    try:
        yield ours.recv(), ours, process
    finally:
        process.terminate()
        process.join(60.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=("azure", "servegen"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--end", type=float)
    args = parser.parse_args()
    arrivals = {
        "kind": "trace",
        "path": str(args.path.absolute()),
        "format": args.format,
        "speed": args.speed,
        "start_s": args.start,
        "end_s": args.end,
    }
    classes = {"replay": {"kind": "trace", "images": {"format": "jpeg", "quality": 80}}}
    with server() as (port, pipe, process):
        values = {
            "target": {"url": f"http://127.0.0.1:{port}", "model": "counted"},
            "arrivals": arrivals,
            "classes": classes,
            # Counting is the point here, not a clean verdict on a shared machine.
            "limits": {"max_lateness_s": 5.0},
        }
        plan = build_plan(check(YamlSource(name="bench", values=values, lines={})))
        result = run(plan)
        os.kill(process.pid, signal.SIGTERM)
        seen = pipe.recv()
    found = compare(plan.arrivals.trace, seen)  # type: ignore[union-attr]
    found |= {
        "duration_s": round(result.duration_s, 2),
        "answered": sum(record.ok for record in result.records),
        "lateness_p99_s": round(result.self_watch.lateness_p99_s, 4),
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(found))
    return 0 if found["exact_rows"] == found["rows"] == found["arrived"] else 1


def compare(trace: Trace, seen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Row by row: prompt total, number of images, output asked for; and the images' own tokens."""
    by_index = {int(key.rsplit("-", 1)[1]): counted for key, counted in seen.items()}
    exact = image_tokens = wanted_image_tokens = 0
    for index, row in enumerate(trace.rows):
        counted = by_index.get(index, {"words": -1, "images": [], "output": -1})
        total = counted["words"] + sum(counted["images"])
        exact += (
            total == row.prompt_tokens
            and len(counted["images"]) == len(row.image_tokens)
            and counted["output"] == max(1, row.output_tokens)
        )
        image_tokens += sum(counted["images"])
        wanted_image_tokens += sum(row.image_tokens)
    return {
        "rows": len(trace.rows),
        "arrived": len(seen),
        "exact_rows": exact,
        "prompt_tokens": sum(row.prompt_tokens for row in trace.rows),
        "output_tokens": sum(max(1, row.output_tokens) for row in trace.rows),
        "images": sum(len(row.image_tokens) for row in trace.rows),
        "image_tokens": wanted_image_tokens,
        "image_tokens_in_pictures": image_tokens,
    }


if __name__ == "__main__":
    sys.exit(main())
