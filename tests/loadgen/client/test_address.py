"""Targets: what a URL means, and that a key is never shown."""

import pytest

from epidote_loadgen.client.address import InvalidTarget, header_lines, resolve
from epidote_loadgen.plan import Target


def test_a_plain_target() -> None:
    address = resolve(Target(url="http://localhost:8000"))
    assert (address.host, address.port, address.tls) == ("localhost", 8000, None)
    head = address.head("/v1/chat/completions", 12, "run-7")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:8000\r\n")
    assert b"x-request-id: run-7\r\n" in head
    assert head.endswith(b"content-length: 12\r\n\r\n")
    assert b"authorization" not in head


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h/v1", b"/v1/chat/completions"),
        ("http://h/v1/", b"/v1/chat/completions"),
        ("http://h/tenant-a", b"/tenant-a/v1/chat/completions"),
        ("http://h/tenant-a/v1", b"/tenant-a/v1/chat/completions"),
    ],
)
def test_a_base_url_may_or_may_not_end_in_v1(url: str, path: bytes) -> None:
    head = resolve(Target(url=url)).head("/v1/chat/completions", 0, "a")
    assert head.split(b" ")[1] == path


def test_https_verifies_unless_told_not_to() -> None:
    assert resolve(Target(url="https://h")).port == 443
    tls = resolve(Target(url="https://h")).tls
    assert tls is not None
    assert tls.check_hostname
    tls = resolve(Target(url="https://h", verify_tls=False)).tls
    assert tls is not None
    assert not tls.check_hostname


def test_a_unix_socket() -> None:
    address = resolve(Target(url="unix:///run/gateway.sock"))
    assert address.unix_path == "/run/gateway.sock"


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy:3128")
    assert resolve(Target(url="http://h:1")).proxy is None


def test_an_http_proxy_is_told_the_whole_url() -> None:
    address = resolve(Target(url="http://h:1/x", proxy_url="http://p:3128"))
    assert address.proxy == ("p", 3128)
    assert address.head("/v1/models", 0, "a").startswith(b"POST http://h:1/x/v1/models HTTP/1.1")


def test_a_key_goes_into_the_head_and_nowhere_else() -> None:
    target = Target(url="http://h", api_key="sk-very-secret")
    address = resolve(target)
    assert b"authorization: Bearer sk-very-secret\r\n" in address.head("/", 0, "a")
    assert "very-secret" not in repr(target)
    assert "very-secret" not in repr(address)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (Target(url="ftp://h"), "target.url: want http"),
        (Target(url="localhost:8000"), "target.url: want http"),
        (Target(url="http://"), "target.url"),
        (Target(url="http://h:99999"), "target.url: Port out of range"),
        (Target(url="unix://relative.sock"), "unix:///path"),
        (Target(url="http://me:secret@h"), "user or password"),
        (Target(url="http://h?key=secret"), "query"),
        (Target(url="https://h", ca_file="/no/such.pem"), "target.ca_file"),
        (Target(url="http://h", proxy_url="socks5://p"), "target.proxy_url"),
        (Target(url="http://h", headers=(("x", "a\r\nb: c"),)), "headers: 'x'"),
        (Target(url="http://h", api_key="secret\nx"), "target.api_key"),
    ],
)
def test_a_target_that_cannot_work_is_named(target: Target, complaint: str) -> None:
    with pytest.raises(InvalidTarget, match=complaint) as caught:
        resolve(target)
    assert "secret" not in str(caught.value)


def test_header_lines_hold_no_line_breaks() -> None:
    assert header_lines((("x-tenant", "a"),)) == b"x-tenant: a\r\n"
    with pytest.raises(InvalidTarget):
        header_lines((("x:y", "a"),))
