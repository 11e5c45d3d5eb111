"""Settings come from the environment once, and nonsense in it is named."""

import pickle
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from epidote_gateway.settings import GatewaySettings, InvalidSettings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert GatewaySettings.from_env({}) == GatewaySettings()
    assert GatewaySettings.from_env({"PATH": "/", "EPIDOTE_MODEL": "x"}) == GatewaySettings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("API_KEYS", "a, bob:b:c ,", (("key-0", "a"), ("bob", "b:c"))),
        ("ADMIN_KEY", "boss", "boss"),
        ("MAX_BODY_BYTES", "1_000", 1000),
        ("QUEUE_TIMEOUT_S", "0.5", 0.5),
        ("FETCH_URLS", "true", True),
        ("FETCH_URLS", "0", False),
        ("FETCH_DOMAINS", "a.com,b.org", ("a.com", "b.org")),
        ("FETCH_DOMAINS", "", ()),
    ],
)
def test_values_are_parsed(name: str, text: str, value: Any) -> None:
    settings = GatewaySettings.from_env({f"EPIDOTE_GATEWAY_{name}": text})
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_BODY_BYTES", "many"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_BODY_BYTES", "-5"),
        ("MAX_BODY_BYTES", ""),
        ("MAX_CONCURRENCY", "1.5"),
        ("QUEUE_TIMEOUT_S", "nan"),
        ("QUEUE_TIMEOUT_S", "-1"),
        ("FETCH_URLS", "maybe"),
        ("API_KEYS", "bob:"),
        ("API_KEYS", ":key"),
        ("MAX_BODDY_BYTES", "5"),
        ("", "5"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^EPIDOTE_GATEWAY_{name}: "):
        GatewaySettings.from_env({f"EPIDOTE_GATEWAY_{name}": text})


def test_keys_are_never_shown() -> None:
    settings = GatewaySettings(api_keys=(("ann", "hush"),), admin_key="hush")
    assert "hush" not in repr(settings)
    with pytest.raises(InvalidSettings) as caught:
        GatewaySettings.from_env({"EPIDOTE_GATEWAY_API_KEYS": "hush:"})
    assert "hush" not in str(caught.value)


def test_settings_travel_to_other_processes() -> None:
    settings = GatewaySettings(max_queue=3)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_page_about_the_gateway_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", page, re.M))
    assert list(listed) == [field.name.upper() for field in fields(GatewaySettings)]
    for field in fields(GatewaySettings):
        text = "" if listed[field.name.upper()] == "–" else listed[field.name.upper()]
        assert field.metadata["parse"](text or "") == field.default if text else not field.default
