"""This file is about `kubectl logs`: the API server fetches them from the node."""

import ssl
from pathlib import Path

from aiohttp import web

from epidote_operator.testing.node.agent import NodeAgent


async def serve_logs(agent: NodeAgent, certificate: Path, key: Path, port: int) -> web.AppRunner:
    """Serve `/containerLogs/...` of the agent's pods on loopback by TLS."""

    async def logs(request: web.Request) -> web.Response:
        wanted = request.match_info
        for pod in agent.pods.values():
            if (pod.namespace, pod.name) == (wanted["namespace"], wanted["pod"]):
                path = pod.folder / f"{wanted['container']}.log"
                body = path.read_bytes() if path.exists() else b""
                if lines := request.query.get("tailLines"):
                    body = b"\n".join(body.split(b"\n")[-int(lines) - 1 :])
                return web.Response(body=body, content_type="text/plain")
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    return runner
