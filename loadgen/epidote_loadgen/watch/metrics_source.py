"""This file is about looking at a metrics page, or asking a Prometheus server for the same."""

from typing import Any

import httpx

from epidote_loadgen.watch.exposition import WANTED, Sample, look_of, parse_page
from epidote_loadgen.watch.look import Look, LookFailed

LOOK_S = 5.0  # a page that takes longer is missed, and the next one tried
MOST_BYTES = 32 << 20


class MetricsPage:
    """A service's own /metrics."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        self._url = url
        self._client = httpx.AsyncClient(trust_env=False, timeout=LOOK_S, headers=headers)

    @property
    def name(self) -> str:
        return f"metrics {self._url}"

    async def look(self) -> Look:
        answer = await _get(self._client, self._url)
        if len(answer.content) > MOST_BYTES:
            raise LookFailed(f"{self._url}: a page of {len(answer.content)} bytes")
        return look_of(parse_page(answer.text))

    async def close(self) -> None:
        await self._client.aclose()


class PrometheusServer:
    """Prometheus' HTTP API; `selector` narrows every series, as in `namespace="prod"`."""

    def __init__(self, url: str, *, selector: str = "") -> None:
        self._url = url.rstrip("/")
        # One query for all names: the instants agree.
        wanted = "|".join(WANTED)
        narrowed = f",{selector}" if selector else ""
        self._query = f'{{__name__=~"{wanted}"{narrowed}}}'
        self._client = httpx.AsyncClient(trust_env=False, timeout=LOOK_S)

    @property
    def name(self) -> str:
        return f"Prometheus {self._url}"

    async def look(self) -> Look:
        url = f"{self._url}/api/v1/query"
        answer = await _get(self._client, url, params={"query": self._query})
        try:
            found = answer.json()
            if found["status"] != "success":
                raise LookFailed(f"{url}: {found.get('error', 'no success')}")
            return look_of(_sample(entry) for entry in found["data"]["result"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise LookFailed(f"{url}: not an answer of Prometheus' API: {error!r}") from error

    async def close(self) -> None:
        await self._client.aclose()


def _sample(entry: dict[str, Any]) -> Sample:
    labels = dict(entry["metric"])
    return labels.pop("__name__"), labels, float(entry["value"][1])


async def _get(
    client: httpx.AsyncClient, url: str, *, params: dict[str, str] | None = None
) -> httpx.Response:
    try:
        answer = await client.get(url, params=params)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LookFailed(f"{url}: {error or type(error).__name__}") from error
    if answer.status_code != 200:
        raise LookFailed(f"{url}: HTTP {answer.status_code}")
    return answer
