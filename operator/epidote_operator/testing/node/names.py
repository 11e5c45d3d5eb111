"""This file is about names of Services inside pods: a hosts file instead of a DNS server.

There is no proxy for cluster addresses here, so a Service's name leads to one of its ready pods,
and only Services whose port is their target port are of use. Without a ready pod connections are
refused, as a proxy refuses them; the name of a headless Service is unknown then.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.errors import KubeError

logger = logging.getLogger(__name__)

POLL_S = 0.25  # clients of an old gateway have five seconds to hear of the new one
HEADER = "127.0.0.1 localhost\n"
NOBODY = "127.255.255.254"  # no pod gets it, see `addresses`


class NamesFile:
    """One hosts file for all pods; changed in place, since pods have it mounted."""

    def __init__(self, api: KubeApi, path: Path) -> None:
        self._api, self.path = api, path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER)

    async def follow(self, pods: Mapping[str, Any]) -> None:
        """Keep it true until cancelled. `pods` are the node's, live."""
        while True:
            try:
                listed = await self._api.request("GET", "/api/v1/services")
                found = [(pod.pod, pod.ip, pod.is_ready) for pod in pods.values()]
                text = hosts(listed["items"], found)
                if text != self.path.read_text():
                    self.path.write_text(text)
            except KubeError as error:  # the server restarts: names stay as they were
                logger.debug("services not listed", extra={"error": repr(error)})
            await asyncio.sleep(POLL_S)


def hosts(
    services: Iterable[Mapping[str, Any]], pods: Iterable[tuple[Mapping[str, Any], str, bool]]
) -> str:
    """The file's text: each Service's names, at the address of its newest pod that is ready.

    `pods` are manifests, addresses, and whether they are ready. Where a Service asks for those that
    are not (`publishNotReadyAddresses`), they come after the ready ones.
    """
    ordered = sorted(pods, key=lambda found: (found[2], found[0]["metadata"]["creationTimestamp"]))
    lines = [HEADER]
    for service in services:
        spec, name = service["spec"], service["metadata"]["name"]
        selector, namespace = spec.get("selector"), service["metadata"]["namespace"]
        if not selector:
            continue
        found = [
            address
            for pod, address, is_ready in ordered
            if (is_ready or spec.get("publishNotReadyAddresses"))
            and pod["metadata"]["namespace"] == namespace
            and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        ]
        if not found and spec.get("clusterIP") != "None":
            found = [NOBODY]
        if found:
            full = f"{name}.{namespace}.svc"
            names = f"{name} {name}.{namespace} {full} {full}.cluster.local"
            lines.append(f"{found[-1]} {names}\n")
    return "".join(lines)
