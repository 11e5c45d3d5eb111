"""This file is about the webhook's certificates in the cluster: kept in a Secret, told to the API.

Several operators share one Secret: whoever is first makes them, the others read them.
"""

import base64
import copy
import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import Conflict
from epidote_operator.kube.paths import collection, item
from epidote_operator.resources.webhook_certificates import (
    Certificates,
    are_usable,
    make_certificates,
)

logger = logging.getLogger(__name__)
CONFIGURATION = ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations")
# As cert-manager and `kubectl create secret tls` name them.
AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
ATTEMPTS = 5  # two operators that start together meet once, not for ever


async def shared_certificates(
    api: KubeApi, namespace: str, secret: str, names: Sequence[str], *, now: dt.datetime
) -> Certificates:
    """The Secret's certificates; made or renewed where they are missing, foreign or near their end.

    Raises:
        Conflict: others kept changing the Secret.
        ApiUnreachable, ApiRefused
    """
    path = item("v1", "secrets", namespace, secret)
    for attempt in range(ATTEMPTS):
        stored = await api.get(path)
        found = _read((stored or {}).get("data") or {})
        if found is not None and are_usable(found, names, now=now):
            return found
        made = make_certificates(names, now=now)
        try:
            if stored is None:
                await api.create(
                    collection("v1", "secrets", namespace), _secret(namespace, secret, made)
                )
            else:
                version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
                await api.merge(path, {"metadata": version, "data": _data(made)})
        except Conflict:
            if attempt == ATTEMPTS - 1:
                raise
            continue  # another operator was first: read what it wrote
        logger.info("webhook certificates made", extra={"secret": f"{namespace}/{secret}"})
        return made
    raise AssertionError("the last attempt returns or raises")


def files_certificates(folder: Path) -> Certificates:
    """Certificates that somebody else keeps there (cert-manager, a mounted Secret).

    Raises:
        OSError: one of ca.crt, tls.crt and tls.key can't be read.
    """
    return Certificates(
        authority=(folder / AUTHORITY).read_bytes(),
        certificate=(folder / CERTIFICATE).read_bytes(),
        key=(folder / KEY).read_bytes(),
    )


def write_files(folder: Path, found: Certificates) -> None:
    """Where the server reads them, and notices that they changed. Only the owner may read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in (
        (AUTHORITY, found.authority),
        (KEY, found.key),
        (CERTIFICATE, found.certificate),
    ):
        partial = folder / f".{name}"
        partial.touch(mode=0o600)
        partial.write_bytes(text)
        partial.replace(folder / name)


async def publish_authority(api: KubeApi, configuration: str, authority: bytes) -> bool:
    """Write `caBundle` into every webhook of the configuration; whether anything was changed.

    A configuration that doesn't exist (the chart was installed without a webhook) is left so.
    """
    path = item(*CONFIGURATION, None, configuration)
    stored = await api.get(path)
    if stored is None:
        return False
    bundle = base64.b64encode(authority).decode()
    webhooks: list[Manifest] = copy.deepcopy(stored.get("webhooks") or [])
    if all(webhook["clientConfig"].get("caBundle") == bundle for webhook in webhooks):
        return False
    for webhook in webhooks:
        webhook["clientConfig"]["caBundle"] = bundle
    version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
    await api.merge(path, {"metadata": version, "webhooks": webhooks})
    logger.info("webhook authority published", extra={"configuration": configuration})
    return True


def _read(data: Mapping[str, str]) -> Certificates | None:
    if not {AUTHORITY, CERTIFICATE, KEY} <= data.keys():
        return None
    texts = {name: base64.b64decode(data[name]) for name in (AUTHORITY, CERTIFICATE, KEY)}
    return Certificates(authority=texts[AUTHORITY], certificate=texts[CERTIFICATE], key=texts[KEY])


def _secret(namespace: str, name: str, made: Certificates) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": _data(made),
    }


def _data(made: Certificates) -> dict[str, str]:
    texts = {AUTHORITY: made.authority, CERTIFICATE: made.certificate, KEY: made.key}
    return {name: base64.b64encode(text).decode() for name, text in texts.items()}
