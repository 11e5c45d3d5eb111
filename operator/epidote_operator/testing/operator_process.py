"""This file is about the operator as a process of its own, on a test cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from epidote_operator.testing.control_plane import Ports
from epidote_operator.testing.service_story import until_true

LAST_WORDS = 3000  # characters of its log
END_S = 60.0


class OperatorProcess:
    """One `epidote-operator run`, told `settings` (EPIDOTE_OPERATOR_…) and `more` variables."""

    def __init__(self, kubeconfig: Path, log: Path, settings: dict[str, str], **more: str) -> None:
        self.port, self.log = Ports.free().etcd, log
        told = {"HTTP_PORT": str(self.port), "HTTP_HOST": "127.0.0.1", **settings}
        environ = {**os.environ, "KUBECONFIG": str(kubeconfig), **more}
        environ |= {f"EPIDOTE_OPERATOR_{name}": value for name, value in told.items()}
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "epidote_operator", "run"],
                env=environ,
                stdout=written,
                stderr=written,
            )

    async def asked(self, path: str) -> httpx.Response | None:
        """What its own HTTP says; None: it does not listen yet.

        Raises:
            AssertionError: it has ended; with its last words.
        """
        if self.process.poll() is not None:
            raise AssertionError(f"the operator ended: {self.log.read_text()[-LAST_WORDS:]}")
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=END_S) as http:
                return await http.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.HTTPError:
            return None

    async def until_ready(self) -> None:
        async def ready() -> bool:
            answer = await self.asked("/readyz")
            return answer is not None and answer.is_success

        await until_true(ready, "the operator is ready")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, if it lives, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(timeout=END_S)
