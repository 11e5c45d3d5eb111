"""This file is about asking all gateways of a service at once, each with a deadline."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping

from epidote_core.errors import EpidoteError
from epidote_operator.observe.exposition import Scrape
from epidote_operator.observe.gateway_client import FleetReport, GatewayClient

DEADLINE_S = 5.0


class Gateways:
    """Clients by URL, kept over ticks; a gateway that is gone is forgotten."""

    def __init__(self) -> None:
        self._clients: dict[str, GatewayClient] = {}
        self._admin_key: str | None = None

    async def follow(self, urls: Iterable[str], admin_key: str | None) -> None:
        """Have exactly these gateways, in this order; a new key means new clients."""
        urls = list(urls)
        wanted = set() if admin_key != self._admin_key else set(urls)
        for url in [url for url in self._clients if url not in wanted]:
            await self._clients.pop(url).aclose()
        self._admin_key = admin_key
        for url in urls:
            if url not in self._clients:
                self._clients[url] = GatewayClient(url, admin_key)
        self._clients = {url: self._clients[url] for url in urls}

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    @property
    def all(self) -> Mapping[str, GatewayClient]:
        return self._clients

    async def scrape(self, now_s: float) -> dict[str, Scrape]:
        """The metrics of those that answer in time."""
        found: dict[str, Scrape] = {}

        async def ask(url: str, client: GatewayClient) -> None:
            with contextlib.suppress(EpidoteError, TimeoutError):
                async with asyncio.timeout(DEADLINE_S):
                    found[url] = await client.scrape(now_s)

        async with asyncio.TaskGroup() as group:
            for url, client in self._clients.items():
                group.create_task(ask(url, client))
        return found

    async def fleet(self, now_s: float) -> tuple[FleetReport | None, GatewayClient | None, str]:
        """The first answer, the gateway that gave it, and why others did not.

        That one is the first of `all` from then on: what it told is acted on through it.
        """
        why = "there is no gateway yet"
        for url, client in self._clients.items():
            try:
                async with asyncio.timeout(DEADLINE_S):
                    report = await client.fleet(now_s)
            except (EpidoteError, TimeoutError) as error:
                why = str(error) or f"{client.url} did not answer within {DEADLINE_S:g} s"
                continue
            self._clients = {url: client, **self._clients}
            return report, client, ""
        return None, None, why
