"""The whole story on a real control plane: install, apply, ask, load, watch, delete.

    python -m epidote_operator.testing.demo

Kubernetes' own programs schedule the pods, a node runs them as processes of this machine: the
operator from the chart, Ray's head, workers with the demo model, a gateway. Ends with 0 if
everything came true and no request failed. Takes three to four minutes on two cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.observe.cluster_observer import gateway_urls
from epidote_operator.resources.labels import SERVICE, Component, label_selector, selector
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.testing.binaries import find_binaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.cluster import HELM_OPTIONS, LocalCluster
from epidote_operator.testing.demo_clients import Load, draw_pictures
from epidote_operator.testing.demo_service import GPUS, NAME, NAMESPACE, demo_manifest
from epidote_operator.testing.fixtures import SCRATCH
from epidote_operator.testing.guard import guarded_credentials
from epidote_operator.testing.real_image import write_real_images

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/epidote"
PATIENCE_S = 300.0
LOOK_S = 0.5
NUM_PICTURES = 300
CALM_S = 6.0  # for everybody to see what calm looks like
OWNED = (
    ("v1", "pods"),
    ("v1", "services"),
    ("v1", "secrets"),
    ("v1", "serviceaccounts"),
    ("apps/v1", "deployments"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("policy/v1beta1", "poddisruptionbudgets"),
)
Status = MultimodalServiceStatus


class StoryFailed(EpidoteError):
    """Something did not come true; the message says what, and how it was instead."""


@dataclass
class Demo:
    """One run. `say` gets a line at a time."""

    api: KubeApi
    cluster: LocalCluster
    say: Callable[[str], None]
    started_s: float = field(default_factory=time.monotonic)
    _last_shown: tuple[object, ...] = ()

    async def tell(self) -> None:
        """All of it."""
        await self.install()
        self.kubectl("apply", "--server-side", "--filename=-", given=json.dumps(demo_manifest()))
        self.note("applied: a pool of 4 workers at least, 5 GPUs at most")
        await self.until(lambda s: holds(s, "Ready") and s.ready_workers >= 4, "the fleet serves")
        self.kubectl("get", "mms,pods", "--namespace=default")
        load = Load(await self.gateway(), NAME, draw_pictures(NUM_PICTURES))
        await asyncio.to_thread(self.ask, load)
        async with load.running():
            await self.play(load)
        self.note(
            f"{load.num_ok} requests answered, {len(load.failures)} failed; "
            f"{load.num_right} of {load.num_pictures} answers about pictures were right"
        )
        if load.failures:
            raise StoryFailed(f"failed requests: {load.failures[:3]}")
        await self.remove()

    async def play(self, load: Load) -> None:
        """Calm, a burst of pictures, calm, more than the budget carries, nothing."""
        load.text_rps, load.image_rps = 3.9, 0.0
        self.note("load: four texts a second")
        await asyncio.sleep(CALM_S)
        await self.until(is_at(encode=1, decode=2), "two workers decode")
        load.text_rps, load.image_rps = 0.8, 1.6
        self.note("load: a burst of pictures, 1.6 a second, and few texts")
        status = await self.until(is_at(encode=2, decode=1), "a decode worker encodes")
        self.why(status)
        load.text_rps, load.image_rps = 3.9, 0.1
        self.note("load: texts again")
        self.why(await self.until(is_at(encode=1, decode=2), "it decodes again"))
        load.text_rps, load.image_rps = 3.9, 2.6
        self.note("load: both, more than five GPUs carry")
        status = await self.until(
            lambda s: holds(s, "ScalingLimited", "GPUBudget") and s.ready_workers == GPUS,
            "the pool has grown to its GPU budget, and says that it would need more",
        )
        self.why(status)
        limited = next(c for c in status.conditions if c.type == "ScalingLimited")
        self.note(f"   ScalingLimited: {limited.message}")
        load.text_rps = load.image_rps = 0.0
        self.note("load: none")
        self.why(await self.until(lambda s: s.workers == 4, "the pool has shrunk to its minimum"))

    async def install(self) -> None:
        """The chart, by helm; the operator is a pod, too."""
        self.run("helm", "install", "epidote", str(CHART), *HELM_OPTIONS)
        self.note("helm install: done")
        path = paths.item("apps/v1", "deployments", "epidote-system", "epidote-operator")

        async def ready() -> bool:
            deployment = await self.api.get(path) or {}
            return bool(deployment.get("status", {}).get("readyReplicas"))

        await self._until_true(ready, "the operator runs")
        self.note("the operator runs")

    async def gateway(self) -> str:
        """Address of a gateway's pod: nobody stands for Services outside of pods here."""
        wanted = label_selector(selector(NAME, Component.GATEWAY))
        path = paths.collection("v1", "pods", NAMESPACE)
        listed = await self.api.request("GET", path, params={"labelSelector": wanted})
        return gateway_urls(listed["items"])[0]

    def ask(self, load: Load) -> None:
        """One question by OpenAI's own client."""
        from openai import OpenAI

        picture = load.pictures[0]
        client = OpenAI(base_url=f"{load.url}/v1", api_key="none", timeout=PATIENCE_S)
        messages: Any = picture.messages()
        answer = client.chat.completions.create(
            model=NAME, messages=messages, temperature=0, max_tokens=16
        )
        text = answer.choices[0].message.content or ""
        self.note(f"Q: {picture.question}  A: {text}  (the picture says: {picture.answer})")
        if not picture.is_answered_by(text):
            raise StoryFailed(f"wrong answer: {text!r}, not {picture.answer!r}")

    async def remove(self) -> None:
        """Delete the service: every object and every process of it goes."""
        self.kubectl("delete", "mms", NAME, "--namespace=default")

        async def gone() -> bool:
            for version, plural in OWNED:
                path = paths.collection(version, plural, NAMESPACE)
                found = await self.api.request("GET", path, params={"labelSelector": SERVICE})
                if found["items"]:
                    return False
            return not processes_of(self.cluster, NAME)

        await self._until_true(gone, "no object and no process of the service is left")
        self.note("deleted: no object and no process of the service is left")

    async def until(self, good: Callable[[Status], bool], what: str) -> Status:
        """Show every change of the status until it is `good`.

        Raises:
            StoryFailed
        """
        status = Status()

        async def true() -> bool:
            nonlocal status
            resource = await self.api.request("GET", paths.service(NAMESPACE, NAME))
            status = Status.model_validate(resource.get("status") or {})
            self._show(status)
            return good(status)

        try:
            await self._until_true(true, what)
        except StoryFailed as failed:
            told = [f"{c.type}={c.status.value} {c.reason}: {c.message}" for c in status.conditions]
            raise StoryFailed("\n  ".join([str(failed), *told])) from None
        self.note(f"✓ {what}")
        return status

    async def _until_true(self, true: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await true():
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise StoryFailed(f"not within {PATIENCE_S:g} s: {what}") from None

    def _show(self, status: Status) -> None:
        switches = tuple(f"{s.worker} {s.state.value}" for s in status.switches)
        shown = (status.role_summary, status.workers, status.desired_workers, switches)
        if shown != self._last_shown:
            self._last_shown = shown
            self.note(
                f"   E/P/D {status.role_summary or '-'}, {status.workers} workers, "
                f"{status.desired_workers} wanted {' '.join(switches)}"
            )

    def why(self, status: Status) -> None:
        """The last decision that changed something, in the operator's words."""
        changed = next((d for d in status.decisions if d.actions), None)
        if changed is not None:
            self.note(f"   status says: {changed.text}")

    def note(self, line: str) -> None:
        self.say(f"{time.monotonic() - self.started_s:6.1f} s  {line}")

    def kubectl(self, *arguments: str, given: str = "") -> None:
        print(self.run("kubectl", *arguments, given=given).rstrip())

    def run(self, tool: str, *arguments: str, given: str = "") -> str:
        """A tool's output. Raises `StoryFailed`."""
        done = subprocess.run(
            [find_tool(tool), f"--kubeconfig={self.cluster.kubeconfig}", *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StoryFailed(f"{tool} {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def is_at(*, encode: int, decode: int) -> Callable[[Status], bool]:
    """Whether so many serve in these roles, and nobody is on the way."""

    def good(status: Status) -> bool:
        ready = {role.name.value: role.ready for role in status.roles}
        at = (ready.get("Encode"), ready.get("Decode")) == (encode, decode)
        return at and not status.switches

    return good


def holds(status: Status, kind: str, reason: str = "") -> bool:
    """Whether a condition is True, for that reason if given."""
    return any(
        c.type == kind and c.status.value == "True" and reason in ("", c.reason)
        for c in status.conditions
    )


def processes_of(cluster: LocalCluster, service: str) -> list[int]:
    """Processes of a service's pods on this cluster, whatever they started included.

    Every pod is told the server's port and its own name, and what it starts inherits that.
    """
    server = guarded_credentials(cluster.kubeconfig).server
    port = f"KUBERNETES_SERVICE_PORT={server.rpartition(':')[2]}".encode()
    name = f"HOSTNAME={service}-".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                told = (entry / "environ").read_bytes().split(b"\0")
                if port in told and any(variable.startswith(name) for variable in told):
                    found.append(int(entry.name))
    return found


def say(line: str) -> None:
    print(line, flush=True)


async def run(cluster: LocalCluster, images: dict[str, str]) -> None:
    say("starting etcd, API server, controllers, scheduler and a node")
    await cluster.up(images=images, gpus=GPUS)
    async with KubeApi.connected(guarded_credentials(cluster.kubeconfig)) as api:
        await Demo(api, cluster, say).tell()


def operator_log(api_folder: Path) -> str:
    logs = [path.read_text(errors="replace") for path in api_folder.rglob("operator.log")]
    return "".join(logs)[-6000:]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if os.geteuid() != 0:
        print("error: pods' volumes are mounted, which needs root", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(
        prefix="epidote-demo-", dir=SCRATCH, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch)
        cluster = LocalCluster(folder / "cluster", find_binaries(), outlives_us=False)
        try:
            asyncio.run(run(cluster, write_real_images(folder / "image")))
        except EpidoteError as error:
            print(f"error: {error}", file=sys.stderr)
            print(operator_log(folder / "cluster"), file=sys.stderr)
            return 1
        finally:
            cluster.down(keep=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
