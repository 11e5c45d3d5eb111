"""This file is about where the API server is and how to prove who we are."""

import json
import os
import ssl
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from epidote_operator.kube.errors import KubeError

IN_CLUSTER = "in-cluster"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoCredentials(KubeError):
    """Neither a kubeconfig nor a service account was found, or it can't be read."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """One API server and one identity. `token_file` is read anew as tokens are rotated."""

    server: str
    ssl_context: ssl.SSLContext
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"
    context: str = ""

    @property
    def is_in_cluster(self) -> bool:
        """Whether they are a pod's own account."""
        return self.context == IN_CLUSTER

    def headers(self) -> dict[str, str]:
        """What proves who we are.

        Raises:
            NoCredentials: the token can't be read now; a rotation may bring it back.
        """
        try:
            token = self.token_file.read_text().strip() if self.token_file else self.token
        except (OSError, UnicodeDecodeError) as error:
            raise NoCredentials(f"{self.token_file}: the token can't be read: {error}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}


def find_credentials(
    environ: Mapping[str, str] = os.environ, *, kubeconfig: Path | None = None
) -> Credentials:
    """In a pod its service account, else the given kubeconfig, `KUBECONFIG`, `~/.kube/config`.

    Raises:
        NoCredentials: with every place that was looked at.
    """
    if kubeconfig is None and (SERVICE_ACCOUNT / "token").exists():
        return from_service_account(environ)
    places = [kubeconfig] if kubeconfig else []
    places += [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    places.append(Path.home() / ".kube" / "config")
    for place in places:
        if place.exists():
            return from_kubeconfig(place)
    looked = ", ".join(str(place) for place in (SERVICE_ACCOUNT, *places))
    raise NoCredentials(f"no Kubernetes credentials: looked at {looked}; set KUBECONFIG")


def from_service_account(environ: Mapping[str, str] = os.environ) -> Credentials:
    """As a pod's own service account."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    namespace = SERVICE_ACCOUNT / "namespace"
    return Credentials(
        server=f"https://{host}:{port}",
        ssl_context=ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")),
        token_file=SERVICE_ACCOUNT / "token",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        context=IN_CLUSTER,
    )


def from_kubeconfig(path: Path) -> Credentials:
    """The current context of one kubeconfig file: token, client certificate, or nothing.

    Raises:
        NoCredentials: unreadable, without a current context, or a kind of login unknown here.
    """
    try:
        config = yaml.safe_load(path.read_text()) or {}
        name = config["current-context"]
        context = _named(config, "contexts", name)["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"]).get("user") or {}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise NoCredentials(f"{path}: no usable current context ({error!r})") from error
    if "exec" in user or "auth-provider" in user:
        raise NoCredentials(f"{path}: log-in plugins are not supported, use a token or certificate")
    token_file = user.get("tokenFile")
    return Credentials(
        server=str(cluster["server"]).rstrip("/"),
        ssl_context=_ssl_context(cluster, user, path.parent),
        token=user.get("token"),
        token_file=path.parent / token_file if token_file else None,
        namespace=context.get("namespace", "default"),
        context=name,
    )


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in config[kind]:
        if entry["name"] == name:
            return dict(entry)
    raise KeyError(f"{kind} has no {name!r}")


def _ssl_context(
    cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path
) -> ssl.SSLContext:
    inline = cluster.get("certificate-authority-data")
    authority = cluster.get("certificate-authority")
    context = ssl.create_default_context(
        cafile=str(folder / authority) if authority else None,
        cadata=b64decode(inline).decode() if inline else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "client-certificate" in user:
        context.load_cert_chain(
            folder / user["client-certificate"], folder / user.get("client-key", "")
        )
    elif "client-certificate-data" in user:
        with TemporaryDirectory() as private:  # OpenSSL reads certificates from files only
            certificate, key = Path(private, "crt"), Path(private, "key")
            key.touch(mode=0o600)
            certificate.write_bytes(b64decode(user["client-certificate-data"]))
            key.write_bytes(b64decode(user["client-key-data"]))
            context.load_cert_chain(certificate, key)
    return context


def write_kubeconfig(
    path: Path,
    *,
    context: str,
    server: str,
    authority: Path,
    user: Mapping[str, str],
    namespace: str = "default",
) -> None:
    """A kubeconfig (0600) with one context; JSON is YAML."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority": str(authority)},
            }
        ],
        "users": [{"name": context, "user": dict(user)}],
        "contexts": [
            {
                "name": context,
                "context": {"cluster": context, "user": context, "namespace": namespace},
            }
        ],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))
