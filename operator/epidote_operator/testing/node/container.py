"""This file is about one container of a pod as a local process: start, probe, restart, stop."""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epidote_operator.testing.node.environment import PodEnvironment, expand
from epidote_operator.testing.node.probes import Prober
from epidote_operator.testing.parent_death import signalled_at_our_death

TERMINATION_MESSAGE, MAX_MESSAGE_BYTES = "/dev/termination-log", 4096
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0  # a kubelet's are 10 s and 5 min


def timestamp() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hides_programs(path: str, images: Iterable[str]) -> bool:
    """Whether a volume there would cover this interpreter, our own files (a checkout in /tmp) or a
    folder that stands for an image.

    Such a volume is left out: the pod then shares that folder with the machine.
    """
    ours = (
        Path(sys.prefix),
        Path(sys.executable),
        Path(__file__).resolve(),
        *(Path(folder).resolve() for folder in images),
    )
    return any(place.is_relative_to(path) for place in ours)


class Container:
    """Runs until `stop`; `status` is what the pod's status says of it."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        folder: Path,
        environment: PodEnvironment,
        prober: Prober,
        images: Mapping[str, str],
        hosts: Path,
        is_init: bool,
        restart_policy: str,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`images`: folders of programs that stand for images, see `agent`."""
        self.spec, self.name = spec, str(spec["name"])
        self._folder, self._environment, self._prober = folder, environment, prober
        self._images, self._is_init, self._policy = images, is_init, restart_policy
        self._hosts = hosts
        self._changed = changed
        self._process: Process | None = None
        self._is_stopping = False
        self.status: dict[str, Any] = {
            "name": self.name,
            "image": spec["image"],
            "imageID": spec["image"],
            "restartCount": 0,
            "ready": False,
            "started": False,
            "state": {"waiting": {"reason": "PodInitializing"}},
            "lastState": {},
        }

    async def run(self) -> None:
        """Start, and start again by the pod's restart policy, until done or stopped."""
        backoff_s = FIRST_BACKOFF_S
        while not self._is_stopping:
            code = await self._run_once()
            if self._is_done(code):
                await self._changed()
                return
            reason = "CrashLoopBackOff" if self.status["restartCount"] else "Restarting"
            self.status["lastState"] = self.status["state"]
            self.status["state"] = {"waiting": {"reason": reason}}
            await self._changed()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
            self.status["restartCount"] += 1

    def _is_done(self, code: int) -> bool:
        if self._is_stopping or (self._is_init and code == 0):
            return True
        if self._is_init:
            return False
        return self._policy == "Never" or (self._policy == "OnFailure" and code == 0)

    async def _run_once(self) -> int:
        """One life of the process; returns its exit code, 128 + n after signal n."""
        process = self._process = await self.spawn(self.spec, self.name)
        began = timestamp()
        self.status |= {
            "containerID": f"process://{process.pid}",
            "started": True,
            "state": {"running": {"startedAt": began}},
            "ready": not self._is_init and not self.spec.get("readinessProbe"),
        }
        await self._changed()
        probing = [] if self._is_init else [asyncio.create_task(self._probe(process))]
        try:
            code = await process.wait()
        finally:
            for task in probing:
                task.cancel()
        code = code if code >= 0 else 128 - code
        self.status |= {
            "ready": False,
            "started": False,
            "state": {
                "terminated": {
                    "exitCode": code,
                    "reason": "Completed" if code == 0 else "Error",
                    "startedAt": began,
                    "finishedAt": timestamp(),
                    "containerID": self.status["containerID"],
                    **self._termination_message(),
                }
            },
        }
        return code

    @property
    def _termination_note(self) -> Path:
        return self._folder / f"{self.name}.termination"

    def _termination_message(self) -> dict[str, str]:
        """What the container left for its status, as far as a kubelet takes it."""
        if not self._termination_note.exists():
            return {}
        text = self._termination_note.read_bytes()[:MAX_MESSAGE_BYTES].decode(errors="replace")
        return {"message": text} if text else {}

    async def spawn(self, spec: Mapping[str, Any], log_name: str) -> Process:
        """The container's process, with its volumes mounted where it has any."""
        variables = await self._environment.variables(spec)
        command = spec.get("command") or ["entrypoint"]
        if programs := self._images.get(spec["image"]):
            variables["PATH"] = f"{programs}{os.pathsep}{variables.get('PATH', os.defpath)}"
        arguments = [expand(part, variables) for part in (*command, *spec.get("args", []))]
        program = shutil.which(arguments[0], path=variables.get("PATH"))
        if program is None:
            raise ValueError(f"container {self.name}: no program {arguments[0]!r} in its image")
        arguments[0] = program
        mounts = [
            mount
            for mount in spec.get("volumeMounts", [])
            if not hides_programs(mount["mountPath"], self._images.values())
        ]
        mounts.sort(key=self._hides_us)
        script = "".join(
            f"mkdir -p {shlex.quote(mount['mountPath'])} && "
            f"mount --bind {shlex.quote(str(self._source(mount)))} "
            f"{shlex.quote(mount['mountPath'])} && "
            for mount in mounts
        )
        if folder := spec.get("workingDir"):
            script += f"cd {shlex.quote(folder)} && "
        if script:
            arguments = ["sh", "-c", script + 'exec "$@"', "sh", *arguments]
        if mounts:
            note = shlex.quote(str(self._termination_note))
            path = shlex.quote(spec.get("terminationMessagePath", TERMINATION_MESSAGE))
            self._termination_note.touch()
            names = f"mount --bind {shlex.quote(str(self._hosts))} /etc/hosts"
            script = f"touch {path} && mount --bind {note} {path} && {names} && {script}"
            arguments[2] = script + 'exec "$@"'
        if mounts:  # a mount namespace of its own: volumes at their paths, for it alone
            as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
            arguments = ["unshare", "--mount", *as_root, *arguments]
        with (self._folder / f"{log_name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *arguments,
                env=variables,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                preexec_fn=signalled_at_our_death(signal.SIGKILL),
            )

    def _hides_us(self, mount: Mapping[str, Any]) -> bool:
        """A volume over the folder that all volumes come from is mounted last."""
        return self._folder.is_relative_to(mount["mountPath"])

    def _source(self, mount: Mapping[str, Any]) -> Path:
        source = self._folder / str(mount["name"])
        return source / str(mount["subPath"]) if "subPath" in mount else source

    async def _probe(self, process: Process) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in ("readinessProbe", "livenessProbe"):
                if probe := self.spec.get(kind):
                    group.create_task(self._follow_probe(kind, probe, process))

    async def _follow_probe(self, kind: str, probe: Mapping[str, Any], process: Process) -> None:
        failures = 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            good = await self._prober.ask(probe, self)
            failures = 0 if good else failures + 1
            is_bad = failures >= probe.get("failureThreshold", 3)
            if kind == "readinessProbe" and self.status["ready"] != good and (good or is_bad):
                self.status["ready"] = good
                await self._changed()
            if kind == "livenessProbe" and is_bad:
                self._signal(signal.SIGTERM)
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to whatever is left after `grace_s`."""
        self._is_stopping = True
        for number, wait_s in ((signal.SIGTERM, max(grace_s, 0.1)), (signal.SIGKILL, 5.0)):
            if self._process is None or self._process.returncode is not None:
                return
            self._signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._process.wait()
        self._signal(signal.SIGKILL)  # children that outlived their parent

    def kill(self) -> None:
        """At once, with all of its children."""
        self._is_stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
