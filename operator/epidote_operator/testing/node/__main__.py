"""This file is about the node agent's own process: `python -m ...node --kubeconfig FILE NODE`."""

import argparse
import asyncio
import json
import logging
from pathlib import Path

from epidote_operator.kube.api import KubeApi
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.node.agent import NodeAgent, until_signalled
from epidote_operator.testing.node.log_server import serve_logs


def main() -> None:
    parser = argparse.ArgumentParser(description="Run pods as local processes.")
    parser.add_argument("node")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for volumes and logs")
    parser.add_argument("--port", type=int, required=True, help="for kubectl logs")
    parser.add_argument("--gpus", type=int, default=0, help="nvidia.com/gpu that it claims")
    parser.add_argument("--images", default="{}", help="JSON: image to its folder of programs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(run(arguments))


async def run(arguments: argparse.Namespace) -> None:
    credentials = guarded_credentials(arguments.kubeconfig)
    pki = arguments.kubeconfig.parent / "pki"
    async with KubeApi.connected(credentials) as api:
        agent = NodeAgent(
            api,
            arguments.node,
            arguments.folder,
            images=json.loads(arguments.images),
            gpus=arguments.gpus,
            kubelet_port=arguments.port,
        )
        runner = await serve_logs(agent, pki / "kubelet.crt", pki / "kubelet.key", arguments.port)
        try:
            await until_signalled(asyncio.create_task(agent.run()))
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    main()
