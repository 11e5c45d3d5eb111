"""Fetching pictures for strangers, against a server that misbehaves in every way it can."""

import asyncio
import ssl
from typing import Any

import pytest

from epidote_gateway.address_policy import AddressPolicy
from epidote_gateway.api_errors import ApiError
from epidote_gateway.url_fetching import UrlFetcher

PICTURE = b"\x89PNG and so on"


class Pictures:
    """An ASGI server of pictures and traps; remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.redirects: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.requests.append(
            {"path": path, "query": scope["query_string"], **dict(scope["headers"])}
        )
        status, headers, bodies = 200, [], [PICTURE]
        if path in self.redirects:
            status, headers = 302, [(b"location", self.redirects[path].encode())]
        elif path == "/missing":
            status = 404
        elif path == "/error":
            status = 500
        elif path == "/large":
            bodies = [b"x" * 1000] * 20
        elif path == "/nowhere":
            status = 302
        elif path == "/slow":
            await asyncio.sleep(5)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if path == "/drip":
                await asyncio.sleep(5)
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def pictures(serve: Any) -> tuple[Pictures, str]:
    app = Pictures()
    return app, await serve(app)


def fetcher(
    url: str = "", *, resolve: Any = None, timeout_s: float = 60, **policy: Any
) -> UrlFetcher:
    if url:
        policy.setdefault("private_hosts", (url.removeprefix("http://"),))
    more = {"resolve": resolve} if resolve else {}
    return UrlFetcher(
        AddressPolicy(**policy), timeout_s=timeout_s, max_redirects=3, max_bytes=10_000, **more
    )


async def refusal(fetching: UrlFetcher, url: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await fetching.fetch(url, field="messages[0].x")
    await fetching.aclose()
    assert caught.value.status == 400
    assert caught.value.param == "messages[0].x"
    return caught.value


async def test_an_allowed_private_host_is_fetched(pictures: tuple[Pictures, str]) -> None:
    app, url = pictures
    found = await fetcher(url).fetch(f"{url}/cat.png?size=%20é&x=1", field="x")
    assert found == PICTURE
    request = app.requests[0]
    assert request["query"] == b"size=%20%C3%A9&x=1"
    assert request[b"host"] == url.removeprefix("http://").encode()
    assert request[b"accept-encoding"] == b"identity"
    assert b"authorization" not in request
    assert b"cookie" not in request


async def test_without_permission_the_same_host_is_not_contacted(
    pictures: tuple[Pictures, str],
) -> None:
    app, url = pictures
    assert (await refusal(fetcher(), f"{url}/cat.png")).code == "image_url_refused"
    assert app.requests == []


PRIVATE_URLS = [
    "http://127.0.0.1/", "http://localhost/", "http://127.1/", "http://0/", "http://2130706433/",
    "http://0x7f000001/", "http://0177.0.0.1/", "http://[::1]/", "http://[::]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/",
    "http://[fe80::1]/", "http://[fd00::1]/", "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/", "http://192.168.0.1/", "http://172.16.0.1/", "http://100.64.0.1/",
    "http://224.0.0.1/", "http://255.255.255.255/", "http://0.0.0.0/", "https://127.0.0.1/",
    "http://127.0.0.1:22/", "http://[2002:7f00:1::]/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE_URLS)
async def test_private_addresses_in_any_notation_are_refused(url: str) -> None:
    assert (await refusal(fetcher(), url)).code == "image_url_refused"


BAD_URLS = [
    "ftp://example.com/x", "file:///etc/passwd", "gopher://example.com/", "unix:/tmp/socket",
    "//example.com/x", "example.com/x", "http:///x", "http://", "https://", "http://user@e.com/",
    "http://user:pass@example.com/", "http://:pw@example.com/", "http://e.com:0/",
    "http://e.com:99999/", "http://e.com:x/", "http://[::1/", "http://exa mple.com/",
    "http://example.com/\r\nX-Injected: 1", "http://example.com/\t", "http://e.com\x00/",
    "http://evil.com\\@127.0.0.1/", "http://" + "a" * 300 + ".com/", "http://..com/", "http://xn--a.com./\x7f",
    "", "javascript:1",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
async def test_urls_that_are_none_are_refused_unresolved(url: str) -> None:
    async def never(host: str, port: int) -> list[str]:
        raise OSError("not found")

    assert (await refusal(fetcher(resolve=never), url)).code == "image_url_refused"


async def test_a_name_that_resolves_to_a_private_address_is_refused() -> None:
    async def rebinding(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    error = await refusal(fetcher(resolve=rebinding), "http://innocent.example/cat.png")
    assert error.code == "image_url_refused"
    assert "127.0.0.1" not in error.message


async def test_the_name_is_resolved_once_and_its_checked_address_used(
    pictures: tuple[Pictures, str],
) -> None:
    app, url = pictures
    port = int(url.rsplit(":", 1)[1])
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    fetching = fetcher(resolve=resolve, private_hosts=("cdn.example",))
    assert await fetching.fetch(f"http://cdn.example:{port}/cat.png", field="x") == PICTURE
    assert asked == ["cdn.example"]
    assert app.requests[0][b"host"] == f"cdn.example:{port}".encode()


async def test_redirects_are_followed_and_checked_again(pictures: tuple[Pictures, str]) -> None:
    app, url = pictures
    app.redirects = {"/a": "/b", "/b": f"{url}/c?d=e"}
    assert await fetcher(url).fetch(f"{url}/a", field="x") == PICTURE
    assert [r["path"] for r in app.requests] == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/x", "http://169.254.169.254/", "file:///etc/passwd", "http://[::1]/",
     "ftp://x/", "http://user:pw@127.0.0.1/", "http://[::1", "//[", "http://evil\\@127.0.0.1/"],
)  # fmt: skip
async def test_a_redirect_to_a_forbidden_place_is_refused(
    pictures: tuple[Pictures, str], target: str
) -> None:
    app, url = pictures
    app.redirects = {"/a": target}
    assert (await refusal(fetcher(url), f"{url}/a")).code == "image_url_refused"
    assert len(app.requests) == 1


async def test_redirects_are_capped(pictures: tuple[Pictures, str]) -> None:
    app, url = pictures
    app.redirects = {"/a": "/a"}
    assert (await refusal(fetcher(url), f"{url}/a")).code == "image_url_refused"
    assert len(app.requests) == 4


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/missing", "image_url_failed"),
        ("/error", "image_url_failed"),
        ("/nowhere", "image_url_failed"),
        ("/large", "image_too_large"),
        ("/slow", "image_url_timeout"),
        ("/drip", "image_url_timeout"),
    ],
)
async def test_a_bad_answer_is_refused(
    pictures: tuple[Pictures, str], path: str, code: str
) -> None:
    _, url = pictures
    timeout_s = 0.3 if code == "image_url_timeout" else 60
    assert (await refusal(fetcher(url, timeout_s=timeout_s), f"{url}{path}")).code == code


async def test_nobody_listening_is_refused_and_a_plain_port_has_no_tls(
    pictures: tuple[Pictures, str],
) -> None:
    _, url = pictures
    fetching = fetcher(private_hosts=("127.0.0.1",))
    assert (await refusal(fetching, "http://127.0.0.1:1/")).code == "image_url_failed"
    fetching = fetcher(private_hosts=("127.0.0.1",))
    https = url.replace("http:", "https:")
    assert (await refusal(fetching, f"{https}/")).code == "image_url_failed"


async def test_a_list_of_domains_keeps_all_others_out(pictures: tuple[Pictures, str]) -> None:
    app, url = pictures
    fetching = fetcher(url, domains=("example.com",))
    assert (await refusal(fetching, f"{url}/x")).code == "image_url_refused"
    assert app.requests == []


async def test_tls_verifies_the_name_not_the_address(monkeypatch: Any) -> None:
    names: list[bytes] = []
    wrap = ssl.SSLContext.wrap_bio

    def remember(self: Any, *args: Any, server_hostname: Any = None, **kwargs: Any) -> Any:
        names.append(server_hostname)
        return wrap(self, *args, server_hostname=server_hostname, **kwargs)

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", remember)

    async def hang_up(reader: Any, writer: Any) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetching = fetcher(resolve=resolve, private_hosts=("cdn.example",))
    await refusal(fetching, f"https://cdn.example:{port}/x")
    server.close()
    assert names == [b"cdn.example"]


async def test_a_chat_sees_a_picture_behind_a_url_and_knows_it_again(
    make_client: Any, chat: Any, serve: Any, picture: Any, data_url: Any, backend: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        file = picture(format="WEBP" if scope["path"] == "/webp" else "PNG")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": file})

    url = await serve(app)
    client = make_client(fetch_urls=True, fetch_private_hosts=("127.0.0.1",), fetch_timeout_s=60)
    for source in (f"{url}/png", f"{url}/webp?signed=1", data_url(picture())):
        response = await client.post("/v1/chat/completions", json=chat("see", source))
        assert response.status_code == 200, response.text
    assert len({key for _, key, _ in backend.encoded}) == 1
    assert len({request.prompt_token_ids for request, _ in backend.requests}) == 1
