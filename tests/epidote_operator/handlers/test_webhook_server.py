"""The webhook's certificates are good ones, are renewed in time, and a server works with them."""

import asyncio
import datetime as dt
import os
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from epidote_operator.act.webhook_tls import files_certificates, write_files
from epidote_operator.handlers.webhook_server import WebhookSettings, webhook_server
from epidote_operator.resources.webhook_certificates import (
    RENEW_DAYS,
    VALID_DAYS,
    Certificates,
    are_usable,
    make_certificates,
)

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
NAMES = ["hook.system.svc", "127.0.0.1"]


def after(days: int) -> dt.datetime:
    return NOW + dt.timedelta(days=days)


def test_fresh_certificates_are_usable_until_a_third_of_their_life_is_left() -> None:
    made = make_certificates(NAMES, now=NOW)
    assert are_usable(made, NAMES, now=NOW)
    assert are_usable(made, NAMES, now=after(VALID_DAYS - RENEW_DAYS - 1))
    assert not are_usable(made, NAMES, now=after(VALID_DAYS - RENEW_DAYS))


def test_certificates_for_other_names_are_not_usable() -> None:
    made = make_certificates(NAMES, now=NOW)
    assert not are_usable(made, ["other.system.svc"], now=NOW)


def test_parts_of_two_sets_are_not_usable_together() -> None:
    one, other = make_certificates(NAMES, now=NOW), make_certificates(NAMES, now=NOW)
    for mixed in (
        Certificates(authority=other.authority, certificate=one.certificate, key=one.key),
        Certificates(authority=one.authority, certificate=one.certificate, key=other.key),
        Certificates(authority=b"?", certificate=one.certificate, key=one.key),
    ):
        assert not are_usable(mixed, NAMES, now=NOW)


def test_the_key_is_never_shown() -> None:
    assert "PRIVATE" not in repr(make_certificates(NAMES, now=NOW))


def test_files_are_read_back_and_for_the_owner_alone(tmp_path: Path) -> None:
    made = make_certificates(NAMES, now=NOW)
    write_files(tmp_path / "tls", made)
    assert files_certificates(tmp_path / "tls") == made
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


async def test_a_client_that_trusts_the_authority_reaches_the_server(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    made = make_certificates(NAMES, now=dt.datetime.now(dt.UTC))
    write_files(tmp_path, made)
    settings = WebhookSettings(address="127.0.0.1", port=unused_tcp_port, folder=tmp_path)

    async def answer(request: Any, **about: Any) -> Any:
        return {"path": about["webhook"], "uid": request["uid"]}

    serving = webhook_server(settings)
    async with asyncio.timeout(60):
        configurations = serving(answer)
        await anext(configurations)
        context = ssl.create_default_context(cadata=made.authority.decode())
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60.0) as client:
            url = f"https://127.0.0.1:{unused_tcp_port}/multimodalservices"
            response = await client.post(url, json={"uid": "u"})
        await configurations.aclose()
    assert response.json() == {"path": "multimodalservices", "uid": "u"}


def test_settings_come_from_the_environment() -> None:
    settings = WebhookSettings.from_env(
        {"EPIDOTE_WEBHOOK_PORT": "9999", "EPIDOTE_WEBHOOK_CERTIFICATES": "/tls", **os.environ}
    )
    assert (settings.port, settings.certificates) == (9999, Path("/tls"))
    assert settings.names[0] == "epidote-webhook.epidote-system.svc"


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "0"), ("PORT", "x"), ("TIMEOUT_SECONDS", "31")]
)
def test_a_setting_that_cannot_be_read_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"EPIDOTE_WEBHOOK_{name}"):
        WebhookSettings.from_env({f"EPIDOTE_WEBHOOK_{name}": value})
