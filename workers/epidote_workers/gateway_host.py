"""This file is about a gateway as a process of its own: `python -m epidote_workers.gateway_host`.

It is a driver of the fleet's Ray cluster, beside a node that `epidote gateway` has joined. It ends
when standard input closes, after the streams under way or `stop_s`.

stdin   a `GatewayOrder` as one line of JSON; then open until the gateway shall end
stdout  one line of JSON when it listens, or when it failed
"""

import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from epidote_gateway.settings import GatewaySettings
from epidote_workers.loop_thread import LoopThread
from epidote_workers.service_settings import APP_NAME, FLEET, ServiceSettings

REGISTER_S = 300.0  # a head that was started a moment ago has not deployed it yet
RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class GatewayOrder:
    """Where the cluster is, what this node is called in it, and where to listen."""

    head: str  # host:port of the head's Ray
    node: str  # the address of this node
    host: str
    port: int
    run_directory: str
    stop_s: float

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


async def find_register(patience_s: float = REGISTER_S) -> tuple[Any, ServiceSettings]:
    """The register's handle, and what the service was started with.

    Raises:
        TimeoutError: there is none.
    """
    from ray import serve

    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fleet: Any = serve.get_deployment_handle(FLEET, app_name=APP_NAME)
            async with asyncio.timeout(30.0):
                settings: ServiceSettings = await fleet.settings.remote()
            return fleet, settings
        except Exception as error:  # of Ray and Serve: it is not there yet
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no fleet in this cluster: {error}") from error
            await asyncio.sleep(RETRY_S)


async def _start(order: GatewayOrder) -> Any:
    from epidote_workers.gateway_server import GatewayServer

    fleet, settings = await find_register()
    worker = replace(settings.worker, run_directory=order.run_directory)
    settings = replace(
        settings,
        worker=worker,
        host=order.host,
        port=order.port,
        gateway=GatewaySettings.from_env(),
    )
    server = GatewayServer(settings, fleet, stop_s=order.stop_s)
    await server.start()
    return server


def main() -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    order = GatewayOrder(**json.loads(sys.stdin.buffer.readline()))
    thread = LoopThread("gateway")
    try:
        import ray

        ray.init(
            address=order.head,
            namespace=APP_NAME,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=order.node,
        )
        server = thread.submit(_start(order)).result()
    except Exception as error:  # told, since nothing else can be done with it
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), flush=True)
        return 1
    print(json.dumps({"listening": f"{order.host}:{order.port}"}), flush=True)
    while sys.stdin.buffer.read(1):
        pass
    thread.submit(server.stop()).result()
    return 0


if __name__ == "__main__":
    # Ray's threads may hang: everything that matters is done by now.
    code = main()
    sys.stdout.flush()
    os._exit(code)
