"""This file is about one scrape seeing all gateways that share a port.

A connection reaches one of them, the kernel says which: its counters alone would jump between
scrapes. So each also answers on a socket in the service's private directory, and the one that is
scraped adds up what all of them say (`epidote_gateway.scrape_merging`).
"""

import asyncio
import contextlib
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

ASK_S = 2.0  # a sibling that is busier than that is left out of this scrape
SUFFIX = ".prom"


class SiblingMetrics:
    """One gateway's socket, and the others'."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._path = directory / f"gateway-{pid}{SUFFIX}"
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, registry: CollectorRegistry) -> None:
        """Answer every connection with this process's metrics."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(generate_latest(registry))
            with contextlib.suppress(OSError):  # whoever asked has left
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(answer, str(self._path))

    async def gather(self) -> list[bytes]:
        """What each of the others says; those that died are swept, those that hang are left out."""
        others = [path for path in self._directory.glob(f"*{SUFFIX}") if path != self._path]
        found = await asyncio.gather(*(self._ask(path) for path in others))
        return [text for text in found if text]

    async def _ask(self, path: Path) -> bytes:
        try:
            async with asyncio.timeout(ASK_S):
                reader, writer = await asyncio.open_unix_connection(str(path))
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except ConnectionRefusedError:  # its process is gone
            path.unlink(missing_ok=True)
        except (OSError, TimeoutError):
            pass
        return b""

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
