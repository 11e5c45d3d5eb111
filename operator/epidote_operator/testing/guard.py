"""This file is about never touching a cluster that somebody works with.

A test cluster is recognised by three things together: its context's name, its address on
loopback, and a folder of ours that holds the kubeconfig. Anything else is refused.
"""

from pathlib import Path
from urllib.parse import urlsplit

from epidote_core.errors import EpidoteError
from epidote_operator.kube.credentials import Credentials, from_kubeconfig

CONTEXT = "epidote-test"
MARKER = "epidote-test-cluster"  # a file beside the kubeconfig


class ForeignCluster(EpidoteError):
    """This is no test cluster of ours: nothing was done to it."""


def guarded_credentials(kubeconfig: Path) -> Credentials:
    """Credentials from a kubeconfig that `up` wrote.

    Raises:
        ForeignCluster: it was not; says by which sign.
    """
    credentials = from_kubeconfig(kubeconfig)
    if credentials.context != CONTEXT:
        raise ForeignCluster(
            f"{kubeconfig}: refusing to touch the context {credentials.context!r}, "
            f"only {CONTEXT!r} is a test cluster"
        )
    host = urlsplit(credentials.server).hostname
    if host not in ("127.0.0.1", "localhost"):
        raise ForeignCluster(f"{kubeconfig}: refusing to touch {host}, which is not loopback")
    if not (kubeconfig.parent / MARKER).exists():
        raise ForeignCluster(f"{kubeconfig}: no file {MARKER} beside it, so we did not start it")
    return credentials
