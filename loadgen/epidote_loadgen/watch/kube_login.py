"""This file is about reaching a Kubernetes API server: the pod's own account, or a kubeconfig."""

import os
import ssl
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoLogin(ValueError):
    """No usable way to log in to a Kubernetes API server; the message says where we looked."""


@dataclass(frozen=True, kw_only=True)
class KubeLogin:
    """A server, and headers that prove who we are (the TLS context may do it too)."""

    server: str
    tls: ssl.SSLContext | None
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def find_login(
    kubeconfig: Path | None, context: str = "", *, environ: Mapping[str, str] = os.environ
) -> KubeLogin:
    """The file named; else, in a pod, its account; else `KUBECONFIG` or ~/.kube/config.

    Raises:
        NoLogin: nothing usable.
    """
    if kubeconfig is None and (ACCOUNT / "token").is_file():
        host = environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        host = f"[{host}]" if ":" in host else host
        port = environ.get("KUBERNETES_SERVICE_PORT", "443")
        return KubeLogin(
            server=f"https://{host}:{port}",
            tls=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
            token=(ACCOUNT / "token").read_text(encoding="utf-8").strip(),
        )
    named = environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = kubeconfig or (Path(named) if named else Path.home() / ".kube" / "config")
    return read_kubeconfig(path, context)


def read_kubeconfig(path: Path, context: str = "") -> KubeLogin:
    """A context of the file; "" is its current one. Raises NoLogin."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        chosen = _named(config["contexts"], context or config["current-context"])["context"]
        cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
        user = _named(config["users"], chosen["user"]).get("user") or {}
        if "exec" in user or "auth-provider" in user:
            raise NoLogin(f"{path}: log-in plugins are not supported; use a token or certificate")
        token = str(user.get("token") or "")
        if user.get("tokenFile"):
            token = (path.parent / user["tokenFile"]).read_text(encoding="utf-8").strip()
        server = str(cluster["server"]).rstrip("/")
        tls = _tls(cluster, user, path.parent) if server.startswith("https://") else None
        return KubeLogin(server=server, tls=tls, token=token)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ssl.SSLError, UnicodeError) as error:
        raise NoLogin(f"{path}: no usable context {context or '(current)'}: {error!r}") from error


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(name)


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    data = cluster.get("certificate-authority-data")
    file = cluster.get("certificate-authority")
    tls = ssl.create_default_context(
        cafile=str(folder / file) if file else None,
        cadata=b64decode(data).decode() if data else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if "client-certificate-data" in user:
        # The ssl module takes certificates from files only.
        with TemporaryDirectory() as scratch:
            pair = Path(scratch) / "cert.pem", Path(scratch) / "key.pem"
            for place, field in zip(pair, ("certificate", "key"), strict=True):
                place.touch(mode=0o600)
                place.write_bytes(b64decode(user[f"client-{field}-data"]))
            tls.load_cert_chain(*pair)
    elif "client-certificate" in user:
        tls.load_cert_chain(folder / user["client-certificate"], folder / user["client-key"])
    return tls
