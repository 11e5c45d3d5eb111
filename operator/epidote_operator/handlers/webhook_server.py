"""This file is about serving the admission webhook with certificates that stay fresh."""

import asyncio
import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import kopf

from epidote_core.errors import EpidoteError
from epidote_operator.act.webhook_tls import (
    CERTIFICATE,
    KEY,
    files_certificates,
    publish_authority,
    shared_certificates,
    write_files,
)
from epidote_operator.kube.api import KubeApi

logger = logging.getLogger(__name__)
PREFIX = "EPIDOTE_WEBHOOK_"
REFRESH_S = 3600.0  # certificates are renewed four months ahead: an hour is often enough


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """Each field is `EPIDOTE_WEBHOOK_<NAME>` in the environment.

    With `certificates` (a folder with ca.crt, tls.crt and tls.key) somebody else renews them;
    else the operator makes its own and keeps them in `secret`. `configuration` names the
    ValidatingWebhookConfiguration that is told of the authority.
    """

    address: str = ""  # "": every interface
    port: int = 9443
    namespace: str = "epidote-system"
    service: str = "epidote-webhook"
    secret: str = "epidote-webhook-tls"  # the Secret's name, not its content
    configuration: str = "epidote"
    timeout_seconds: int = 5  # what the configuration grants us for an answer
    certificates: Path | None = None
    folder: Path = Path("/tmp/epidote-webhook")  # where the server reads its own

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "WebhookSettings":
        """Read `EPIDOTE_WEBHOOK_*`; unknown names are left to the operator's other settings.

        Raises:
            ValueError: naming the variable.
        """
        found: dict[str, object] = {}
        for name in cls.__dataclass_fields__:
            if (text := environ.get(PREFIX + name.upper())) is None:
                continue
            match name:
                case "port" if not text.isdigit() or not 0 < int(text) < 65_536:
                    raise ValueError(f"{PREFIX}PORT: must be 1 to 65535, got {text!r}")
                case "timeout_seconds" if not text.isdigit() or not 0 < int(text) <= 30:
                    raise ValueError(f"{PREFIX}TIMEOUT_SECONDS: must be 1 to 30, got {text!r}")
                case "port" | "timeout_seconds":
                    found[name] = int(text)
                case "certificates" | "folder":
                    found[name] = Path(text) if text else None
                case _:
                    found[name] = text
        return cls(**found)  # type: ignore[arg-type]

    @property
    def asking_s(self) -> float:
        """How long the API server may be asked in return; the rest is for the way there and back.

        >>> WebhookSettings(timeout_seconds=5).asking_s
        3.0
        """
        return 0.6 * self.timeout_seconds

    @property
    def names(self) -> list[str]:
        """The names the API server may call the Service by."""
        host = f"{self.service}.{self.namespace}"
        return [f"{host}.svc", host, self.service, f"{host}.svc.cluster.local"]


async def refresh(api: KubeApi, settings: WebhookSettings, *, now: dt.datetime) -> None:
    """Put fresh certificates where the server reads them, and tell the API server whom to trust."""
    if settings.certificates is not None:
        found = await asyncio.to_thread(files_certificates, settings.certificates)
    else:
        found = await shared_certificates(
            api, settings.namespace, settings.secret, settings.names, now=now
        )
        await asyncio.to_thread(write_files, settings.folder, found)
    await publish_authority(api, settings.configuration, found.authority)


def webhook_server(settings: WebhookSettings) -> kopf.WebhookServer:
    """kopf's server; it reads the files again when they change. Call `refresh` first."""
    folder = settings.certificates or settings.folder
    return kopf.WebhookServer(
        addr=settings.address or None,
        port=settings.port,
        host=settings.names[0],
        certfile=folder / CERTIFICATE,
        pkeyfile=folder / KEY,
    )


async def keep_fresh(api: KubeApi, settings: WebhookSettings) -> None:
    """Refresh for ever. A failure is logged and tried again: the old ones last for months."""
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            await refresh(api, settings, now=dt.datetime.now(dt.UTC))
        except (EpidoteError, OSError):
            logger.warning("webhook certificates not refreshed", exc_info=True)
