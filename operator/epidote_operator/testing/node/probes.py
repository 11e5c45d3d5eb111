"""This file is about asking a container whether it is well: HTTP, TCP or a command."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from epidote_operator.testing.node.container import Container


class Prober:
    """Asks the containers of one pod, at the pod's address."""

    def __init__(self, http: httpx.AsyncClient, pod_ip: str) -> None:
        self._http, self._pod_ip = http, pod_ip

    async def ask(self, probe: Mapping[str, Any], container: "Container") -> bool:
        """Whether the probe succeeds within its `timeoutSeconds`."""
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                if get := probe.get("httpGet"):
                    return await self._get(get, container)
                if tcp := probe.get("tcpSocket"):
                    _, writer = await asyncio.open_connection(
                        tcp.get("host", self._pod_ip), _port(tcp["port"], container)
                    )
                    writer.close()
                    return True
                if command := probe.get("exec"):
                    spec = {**container.spec, "command": command["command"], "args": []}
                    process = await container.spawn(spec, f"{container.name}.probe")
                    return await process.wait() == 0
        except (OSError, TimeoutError, httpx.HTTPError):
            return False
        raise ValueError(f"a probe needs httpGet, tcpSocket or exec, got {sorted(probe)}")

    async def _get(self, get: Mapping[str, Any], container: "Container") -> bool:
        scheme = get.get("scheme", "HTTP").lower()
        host, port = get.get("host", self._pod_ip), _port(get["port"], container)
        headers = {header["name"]: header["value"] for header in get.get("httpHeaders", [])}
        answer = await self._http.get(
            f"{scheme}://{host}:{port}{get.get('path', '/')}", headers=headers
        )
        return 200 <= answer.status_code < 400


def _port(port: int | str, container: "Container") -> int:
    """A number, or the container port of that name."""
    if isinstance(port, int):
        return port
    for named in container.spec.get("ports", []):
        if named.get("name") == port:
            return int(named["containerPort"])
    raise ValueError(f"container {container.name}: no port is called {port!r}")
