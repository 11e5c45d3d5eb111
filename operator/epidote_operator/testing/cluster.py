"""This file is about the whole test cluster: control plane and one node, up and down."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.testing import processes
from epidote_operator.testing.binaries import Binaries
from epidote_operator.testing.control_plane import ControlPlane
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.processes import ProcessFailed

NODE = "node-0"
AGENT = "node-agent"
READY_S = 60.0
DEFAULT_GPUS = 64  # pretended: enough for every test, so that the GPU budget is what binds
# What installing the chart on it takes: its server is old, so its document knows no CEL, and no
# Service proxy leads it to a webhook; pods share the machine's network.
HELM_OPTIONS = (
    "--namespace=epidote-system",
    "--create-namespace",
    "--disable-openapi-validation",
    "--set=webhook.enabled=false",
    "--set=extraEnv[0].name=EPIDOTE_OPERATOR_HTTP_HOST",
    "--set=extraEnv[0].valueFrom.fieldRef.fieldPath=status.podIP",
)


class LocalCluster:
    """A test cluster in `folder`; `outlives_us` as for its control plane."""

    def __init__(self, folder: Path, binaries: Binaries, *, outlives_us: bool = True) -> None:
        self.control_plane = ControlPlane(folder, binaries, node=NODE, outlives_us=outlives_us)
        self.folder = self.control_plane.folder

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.admin

    async def up(
        self,
        *,
        crds: Sequence[Manifest] = (),
        images: Mapping[str, str] | None = None,
        gpus: int = DEFAULT_GPUS,
    ) -> None:
        """Start everything and wait for the node.

        `images`: folders of programs that stand for images, see `node.agent`.

        Raises:
            ProcessFailed: a part did not come up; nothing is left running.
        """
        await self.control_plane.start(crds=crds)
        try:
            self.start_agent(images=images or {}, gpus=gpus)
            await self._until_node_ready()
        except BaseException:
            self.down(keep=True)
            raise

    def start_agent(self, *, images: Mapping[str, str], gpus: int) -> None:
        """Start the node agent; its pods end with it."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        processes.spawn(
            self.folder,
            AGENT,
            [
                *(sys.executable, "-m", "epidote_operator.testing.node", NODE),
                *("--kubeconfig", self.control_plane.node_kubeconfig),
                *("--folder", self.folder / "pods"),
                *("--port", str(port)),
                *("--gpus", str(gpus)),
                *("--images", json.dumps(dict(images))),
            ],
            dict(os.environ),
            # Its pods end with it: they get a signal of their own.
            at_our_death=None if self.control_plane.outlives_us else signal.SIGTERM,
        )

    def down(self, *, keep: bool = False) -> None:
        """Stop everything; `keep` leaves the folder with its logs."""
        processes.stop(self.folder, AGENT, signal.SIGTERM)
        self.control_plane.stop(keep=keep)

    async def _until_node_ready(self) -> None:
        async with KubeApi.connected(guarded_credentials(self.kubeconfig)) as api:
            try:
                async with asyncio.timeout(READY_S):
                    while not await self._is_node_ready(api):
                        if not processes.is_running(self.folder, AGENT):
                            raise ProcessFailed(
                                f"{AGENT} ended: {processes.last_words(self.folder, AGENT)}"
                            )
                        await asyncio.sleep(0.1)
            except TimeoutError as error:
                raise ProcessFailed(
                    f"the node was not ready within {READY_S:g} s: "
                    f"{processes.last_words(self.folder, AGENT)}"
                ) from error

    async def _is_node_ready(self, api: KubeApi) -> bool:
        node = await api.get(f"/api/v1/nodes/{NODE}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def load_crds(folder: Path) -> list[Manifest]:
    """Every CustomResourceDefinition of `folder`'s YAML files; none if there is no folder."""
    documents = [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    return [d for d in documents if d and d.get("kind") == "CustomResourceDefinition"]
