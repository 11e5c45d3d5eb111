"""This file is about certificates for loopback, made on the spot and thrown away with the cluster.

ca ─┬─ apiserver     serves; localhost, 127.0.0.1, the API's Service names
    ├─ admin         a client in the group system:masters
    ├─ front-proxy   the API server towards aggregated APIs
    ├─ kubelet       the node agent serves logs with it
    └─ webhook       the operator's admission webhook on localhost
service-accounts.key signs the tokens of service accounts
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
API_NAMES = (
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
    "IP:127.0.0.1,IP:10.96.0.1"
)
LOCAL_NAMES = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    name: str
    subject: str
    usage: str  # serverAuth or clientAuth
    names: str = ""


LEAVES = (
    Leaf(name="apiserver", subject="/CN=kube-apiserver", usage="serverAuth", names=API_NAMES),
    Leaf(name="admin", subject="/O=system:masters/CN=epidote-test-admin", usage="clientAuth"),
    Leaf(name="front-proxy", subject="/CN=front-proxy-client", usage="clientAuth"),
    Leaf(name="kubelet", subject="/CN=kubelet", usage="serverAuth", names=LOCAL_NAMES),
    Leaf(name="webhook", subject="/CN=webhook", usage="serverAuth", names=LOCAL_NAMES),
)


def make_certificates(folder: Path) -> None:
    """Write `ca.crt`, `{leaf}.crt`, `{leaf}.key` and `service-accounts.key` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        folder,
        *("req", "-x509", *CURVE, "-days", "3650", "-subj", "/CN=epidote-test-ca"),
        *("-keyout", "ca.key", "-out", "ca.crt"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
    )
    for leaf in LEAVES:
        _sign(folder, leaf)
    _openssl(folder, "genrsa", "-out", "service-accounts.key", "2048")


def _sign(folder: Path, leaf: Leaf) -> None:
    _openssl(
        folder,
        *("req", "-new", *CURVE, "-subj", leaf.subject),
        *("-keyout", f"{leaf.name}.key", "-out", f"{leaf.name}.csr"),
    )
    extensions = [f"extendedKeyUsage={leaf.usage}", "basicConstraints=critical,CA:FALSE"]
    if leaf.names:
        extensions.append(f"subjectAltName={leaf.names}")
    (folder / f"{leaf.name}.ext").write_text("\n".join(extensions) + "\n")
    _openssl(
        folder,
        *("x509", "-req", "-in", f"{leaf.name}.csr", "-out", f"{leaf.name}.crt"),
        *("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "3650", "-extfile", f"{leaf.name}.ext"),
    )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
