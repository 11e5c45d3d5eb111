"""This file is about starting and stopping etcd, API server, controllers and scheduler on loopback.

Everything lives in one folder: certificates, tokens, kubeconfigs, logs, process ids, etcd's data.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.credentials import from_kubeconfig, write_kubeconfig
from epidote_operator.kube.errors import KubeError
from epidote_operator.testing import processes
from epidote_operator.testing.binaries import Binaries
from epidote_operator.testing.certificates import make_certificates
from epidote_operator.testing.guard import CONTEXT, MARKER
from epidote_operator.testing.processes import ProcessFailed

READY_S = 120.0  # 6 s on two idle cores; CI's are slow and shared
POLL_S = 0.05
RESTART_S, MAX_RESTARTS = 1.0, 10
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Stopped in this order: nobody reports the others as lost.
PARTS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
NODE_USER = "system:node:{}"
USERS = {  # user: groups
    "admin": "system:masters",
    # without credentials of single controllers it needs all of their rights itself
    "system:kube-controller-manager": "system:masters",
    "system:kube-scheduler": "",
}

_GIVEN: set[int] = set()  # an operator's process takes seconds until it listens


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Loopback ports of the parts."""

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on now, and that no earlier call here has given away."""
        sockets, numbers = list[socket.socket](), list[int]()
        while len(numbers) < len(cls.__dataclass_fields__):
            sockets.append(socket.create_server(("127.0.0.1", 0)))
            number = sockets[-1].getsockname()[1]
            if number not in _GIVEN:
                numbers.append(number)
        for sock in sockets:
            sock.close()
        _GIVEN.update(numbers)
        return cls(**dict(zip(cls.__dataclass_fields__, numbers, strict=True)))


class ControlPlane:
    """One control plane in `folder`; a later process finds it there again.

    `outlives_us` False: its processes end with this one, whatever ends it.
    """

    def __init__(
        self, folder: Path, binaries: Binaries, *, node: str = "node-0", outlives_us: bool = True
    ) -> None:
        self.folder, self.binaries, self.node = folder.resolve(), binaries, node
        self.outlives_us = outlives_us
        self.admin = self.folder / "admin.kubeconfig"
        self.node_kubeconfig = self.folder / "node.kubeconfig"

    async def start(self, *, crds: Sequence[Manifest] = ()) -> None:
        """Bring it up in an empty folder, with `crds` there before the garbage collector starts.

        The collector looks for new kinds every 30 s only; owners of such kinds wait for that.

        Raises:
            ProcessFailed: a part ended or was not ready in time; everything is stopped again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()
        make_certificates(self.folder / "pki")
        (self.folder / "ports.json").write_text(json.dumps(vars(Ports.free())))
        self._write_identities()
        try:
            self._start_etcd()
            self.start_apiserver()
            async with KubeApi.connected(from_kubeconfig(self.admin)) as api:
                await self.wait_for_apiserver(api)
                for crd in crds:  # plain POST: an old server prunes what it doesn't know
                    await api.create(CRDS, crd)
                self._start_controllers()
                await self._until_serviceaccounts(api)
        except BaseException:
            self.stop(keep=True)
            raise

    def stop(self, *, keep: bool = False) -> None:
        """Kill every part and delete the folder; `keep` leaves logs and data."""
        for part in PARTS:
            processes.stop(self.folder, part)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill_apiserver(self) -> None:
        """Take the API server away, as an upgrade of it or a crash would."""
        processes.stop(self.folder, "kube-apiserver")

    def start_apiserver(self) -> None:
        """Start it (again) with the same address, keys and data."""
        pki, ports = self.folder / "pki", self._ports()
        self._spawn(
            "kube-apiserver",
            self.binaries.apiserver,
            f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
            f"--secure-port={ports.apiserver}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # loopback is no endpoint for it
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={self.folder}/tokens.csv",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            f"--service-account-key-file={pki}/service-accounts.key",
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy.crt",
            f"--proxy-client-key-file={pki}/front-proxy.key",
        )

    async def wait_for_apiserver(self, api: KubeApi) -> None:
        """Until it serves.

        Raises:
            ProcessFailed
        """

        async def ready() -> bool:
            try:
                if await api.text("/readyz") != "ok":
                    return False
                await api.get("/api/v1/namespaces/default")
            except (KubeError, ValueError):
                return False
            return True

        await self._until(ready, "kube-apiserver")

    def _write_identities(self) -> None:
        users = {**USERS, NODE_USER.format(self.node): "system:nodes"}
        tokens = {user: secrets.token_hex(16) for user in users}
        table = self.folder / "tokens.csv"
        table.touch(mode=0o600)
        table.write_text(
            "".join(f'{tokens[user]},{user},{user},"{groups}"\n' for user, groups in users.items())
        )
        pki = self.folder / "pki"
        client = {
            "client-certificate": str(pki / "admin.crt"),
            "client-key": str(pki / "admin.key"),
        }
        self._kubeconfig(self.admin, client)
        self._kubeconfig(self.node_kubeconfig, {"token": tokens[NODE_USER.format(self.node)]})
        for part in ("kube-controller-manager", "kube-scheduler"):
            token = {"token": tokens[f"system:{part}"]}
            self._kubeconfig(self.folder / f"{part}.kubeconfig", token)

    def _kubeconfig(self, path: Path, user: dict[str, str]) -> None:
        write_kubeconfig(
            path,
            context=CONTEXT,
            server=f"https://127.0.0.1:{self._ports().apiserver}",
            authority=self.folder / "pki" / "ca.crt",
            user=user,
        )

    def _start_etcd(self) -> None:
        client = f"http://127.0.0.1:{self._ports().etcd}"
        peer = f"http://127.0.0.1:{self._ports().etcd_peer}"
        self._spawn(
            "etcd",
            self.binaries.etcd,
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # the data is worth nothing after the tests
        )

    def _start_controllers(self) -> None:
        for part in ("kube-controller-manager", "kube-scheduler"):
            self._start_controller(part)

    def _start_controller(self, part: str) -> None:
        pki, ports = self.folder / "pki", self._ports()
        # Old servers also listen on an insecure port unless told not to; new ones have no flag.
        insecure = ("--port=0",) if self.binaries.version() < (1, 23) else ()
        if part == "kube-scheduler":
            binary, port = self.binaries.scheduler, ports.scheduler
            more: tuple[str, ...] = ()
        else:
            binary, port = self.binaries.controller_manager, ports.controller_manager
            more = (
                "--use-service-account-credentials=false",
                f"--service-account-private-key-file={pki}/service-accounts.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                "--horizontal-pod-autoscaler-sync-period=5s",
                # Its own 20 a second would be most of what a test waits for when it deletes.
                "--kube-api-qps=300",
                "--kube-api-burst=600",
            )
        config = self.folder / f"{part}.kubeconfig"
        self._spawn(
            part,
            binary,
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--leader-elect=false",
            *insecure,
            *more,
        )

    async def _until_serviceaccounts(self, api: KubeApi) -> None:
        """The controllers work once the default service account is there; the scheduler answers."""

        async def ready() -> bool:
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            return await api.get(path) is not None

        await self._until(ready, "kube-controller-manager", restarts=MAX_RESTARTS)
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:

            async def healthy() -> bool:
                try:
                    answer = await http.get(f"https://127.0.0.1:{self._ports().scheduler}/healthz")
                except httpx.HTTPError:
                    return False
                return answer.is_success

            await self._until(healthy, "kube-scheduler", restarts=MAX_RESTARTS)

    async def _until(
        self, ready: Callable[[], Awaitable[bool]], part: str, *, restarts: int = 0
    ) -> None:
        """Controllers give up on a slow API server; a kubelet would start them again."""
        try:
            async with asyncio.timeout(READY_S):
                while not await ready():
                    if not processes.is_running(self.folder, part):
                        if not restarts:
                            raise ProcessFailed(
                                f"{part} ended: {processes.last_words(self.folder, part)}"
                            )
                        restarts -= 1
                        await asyncio.sleep(RESTART_S)
                        self._start_controller(part)
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise ProcessFailed(
                f"{part} was not ready within {READY_S:g} s: "
                f"{processes.last_words(self.folder, part)}"
            ) from error

    def _spawn(self, name: str, *arguments: str | Path) -> None:
        # The parts read variables of their own kind; ours may point elsewhere.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        at_our_death = None if self.outlives_us else signal.SIGKILL
        processes.spawn(self.folder, name, arguments, clean, at_our_death=at_our_death)

    def _ports(self) -> Ports:
        return Ports(**json.loads((self.folder / "ports.json").read_text()))
