"""Small frames per second in one direction between two processes, through one unix socket.

python workers/bench/rpc_frames.py --items 300000
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.client import connect
from epidote_workers.rpc.frames import Method
from epidote_workers.rpc.server import Server, Service


@dataclass(frozen=True, kw_only=True)
class Count:
    items: int


COUNT: Method[Count, tuple[int, str]] = Method("count", Count, tuple[int, str])


async def produce(args: Count) -> AsyncGenerator[tuple[int, str], None]:
    for number in range(args.items):
        yield (number, "token")


def loop_factory(uvloop: bool) -> object:
    if uvloop:
        import uvloop as library

        return library.new_event_loop
    return None


def serve(path: str, uvloop: bool) -> None:
    async def main() -> None:
        service = Service()
        service.add_stream(COUNT, produce)
        server = Server(service)
        await server.listen(UnixAddress(path))
        await asyncio.sleep(3600)

    with asyncio.Runner(loop_factory=loop_factory(uvloop)) as runner:  # type: ignore[arg-type]
        runner.run(main())


async def measure(path: str, items: int, streams: int) -> float:
    while not Path(path).exists():
        await asyncio.sleep(0.02)
    connection = await connect(f"unix:{path}")

    async def read(count: int) -> int:
        stream = connection.stream(COUNT, Count(items=count))
        seen = 0
        while got := await stream.take(10.0):
            seen += len(got)
        return seen

    await read(1000)
    start_s = time.perf_counter()
    seen = sum(await asyncio.gather(*(read(items // streams) for _ in range(streams))))
    spent_s = time.perf_counter() - start_s
    connection.close("done")
    assert seen == items // streams * streams
    return seen / spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--no-uvloop", action="store_true")
    options = parser.parse_args()
    report = {}
    for streams in (1, 16):
        with tempfile.TemporaryDirectory() as directory:
            path = f"{directory}/s"
            server = multiprocessing.get_context("spawn").Process(
                target=serve, args=(path, not options.no_uvloop), daemon=True
            )
            server.start()
            try:
                with asyncio.Runner(
                    loop_factory=loop_factory(not options.no_uvloop)  # type: ignore[arg-type]
                ) as runner:
                    rate = runner.run(measure(path, options.items, streams))
            finally:
                server.kill()
                server.join()
        report[f"frames_per_s_{streams}_streams"] = round(rate)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
