"""The client against the mock server, in one loop: good streams, faults, limits, odd transports."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from epidote_loadgen.client.exchange import FREE_BYTES, FREE_EVENTS, Exchange
from epidote_loadgen.fakes import RecordingClient as Client
from epidote_loadgen.mock_server.faults import Fault, FaultMix
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.replies import HEAD, TOKEN
from epidote_loadgen.mock_server.server import MockServer, MockSettings, serving
from epidote_loadgen.plan import CapPolicy, Limits, Target
from epidote_loadgen.records import PlannedRequest, RequestStatus, Slot

BODY = json.dumps(
    {
        "model": "mock",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()
QUICK = LatencyLaw(ttft_s=0.005, itl_s=0.002)


def planned(index: int, *, expected: str | None = None) -> PlannedRequest:
    slot = Slot(index=index, intended_send_s=0.0, class_name="chat", item=index)
    return PlannedRequest(slot=slot, body=BODY, expected_answer=expected)


@contextlib.asynccontextmanager
async def mocked(
    settings: MockSettings | None = None,
    limits: Limits | None = None,
    change: Callable[[str], Target] = lambda url: Target(url=url),
) -> AsyncIterator[tuple[Client, MockServer]]:
    async with serving(settings or MockSettings(law=QUICK, num_tokens=4)) as (server, url):
        client = Client(change(url), limits or Limits())
        try:
            yield client, server
        finally:
            await client.dispatcher.close("the test is over")


async def test_a_stream_becomes_a_record() -> None:
    async with mocked() as (client, server):
        client.send(planned(0))
        (record,) = await client.ended(1)
    assert record.status is RequestStatus.OK
    assert record.http_status == 200
    assert record.output_tokens == len(record.content_offsets_s) == 4
    assert record.prompt_tokens == len(BODY) // 4
    assert record.ttft_s is not None
    assert record.e2e_s is not None
    assert 0.005 <= record.ttft_s <= record.e2e_s
    assert server.truth.served[0].key == "run-0"


async def test_a_reply_is_scored_only_against_an_expectation() -> None:
    async with mocked() as (client, _):
        right = planned(1, expected="word word word word")
        client.send(planned(0), right, planned(2, expected="no"))
        records = await client.ended(3)
    assert [record.correct for record in records] == [None, True, False]
    assert [record.expects_answer for record in records] == [False, True, True]


async def test_connections_are_used_again() -> None:
    async with mocked() as (client, _):
        for index in range(5):
            client.send(planned(index))
            await client.ended(index + 1)
            await asyncio.sleep(0)  # the connection is freed after its record
        assert client.dispatcher.num_connections == 1


FAULTS = {
    Fault.HTTP_500: (RequestStatus.HTTP_ERROR, "HTTP 500 (mock)"),
    Fault.HTTP_429: (RequestStatus.HTTP_ERROR, "HTTP 429 (mock)"),
    Fault.NOT_SSE: (RequestStatus.BAD_SSE, "no event stream"),
    Fault.REFUSE: (RequestStatus.RESET, "reset"),
    Fault.RESET: (RequestStatus.RESET, "reset"),
    Fault.TRUNCATE: (RequestStatus.TRUNCATED, "without [DONE]"),
    Fault.GARBAGE: (RequestStatus.BAD_SSE, "no completion chunk"),
    Fault.ERROR_EVENT: (RequestStatus.SERVER_ERROR, "error event"),
    Fault.EMPTY: (RequestStatus.EMPTY, "without content"),
    Fault.HANG: (RequestStatus.TIMEOUT, "not finished within 0.5 s"),
    Fault.ENDLESS: (RequestStatus.TIMEOUT, "not finished within 0.5 s"),
}


@pytest.mark.parametrize("fault", Fault)
async def test_a_fault_is_told_by_its_name_and_harms_nobody_else(fault: Fault) -> None:
    status, error = FAULTS[fault]
    settings = MockSettings(law=QUICK, num_tokens=4, faults=FaultMix({fault: 0.5}, seed=1))
    limits = Limits(request_timeout_s=0.5 if status is RequestStatus.TIMEOUT else 60.0)
    async with mocked(settings, limits) as (client, server):
        client.send(*(planned(index) for index in range(24)))
        records = await client.ended(24)
        hit = {int(r.key[4:]): bool(r.fault) for r in server.truth.served}
    assert 0 < sum(hit.values()) < len(hit)
    # On a slow machine good ones may time out too, or before they have reached the server.
    if status is not RequestStatus.TIMEOUT:
        assert {record.index: not record.ok for record in records} == hit
    for record in records:
        if hit.get(record.index):
            assert record.status is status
            assert error in record.error


async def test_nobody_listening_is_a_connect_error() -> None:
    async with serving(MockSettings()) as (_, url):
        pass  # the port was ours, and is free again
    client = Client(Target(url=url), Limits())
    client.send(planned(0), planned(1))
    records = await client.ended(2)
    await client.dispatcher.close("over")
    assert {record.status for record in records} == {RequestStatus.CONNECT}
    assert records[0].error
    assert records[0].sent_s is None


async def test_a_cap_holds_requests_back_and_says_for_how_long() -> None:
    settings = MockSettings(law=LatencyLaw(ttft_s=0.05, itl_s=0.0), num_tokens=1)
    async with mocked(settings, Limits(max_in_flight=3)) as (client, server):
        client.send(*(planned(index) for index in range(12)))
        records = await client.ended(12)
        assert server.truth.max_open <= 3
    assert client.dispatcher.max_in_flight == 3
    assert [record.waited_for_cap_s > 0.04 for record in records] == [False] * 3 + [True] * 9
    ttft_s = records[-1].ttft_s
    assert ttft_s is not None
    assert ttft_s > 0.15  # its own wait counts: from the intended send


async def test_a_cap_may_drop_instead() -> None:
    limits = Limits(max_in_flight=3, on_cap=CapPolicy.DROP)
    async with mocked(limits=limits) as (client, server):
        client.send(*(planned(index) for index in range(12)))
        records = await client.ended(12)
        assert len(server.truth.served) == 3
    assert Counter(record.status for record in records) == {
        RequestStatus.OK: 3,
        RequestStatus.CAPPED: 9,
    }


async def test_too_few_connections_make_requests_wait() -> None:
    settings = MockSettings(law=LatencyLaw(ttft_s=0.03, itl_s=0.0), num_tokens=1)
    async with mocked(settings, Limits(max_connections=2)) as (client, _):
        client.send(*(planned(index) for index in range(8)))
        records = await client.ended(8)
        assert client.dispatcher.num_connections == 2
    assert sum(record.waited_for_cap_s > 0.02 for record in records) == 6


async def test_what_is_open_at_the_end_is_unfinished_and_what_waits_was_never_sent() -> None:
    settings = MockSettings(law=LatencyLaw(ttft_s=600.0))
    async with mocked(settings, Limits(max_in_flight=2)) as (client, server):
        client.send(*(planned(index) for index in range(5)))
        async with asyncio.timeout(60.0):
            while len(server.truth.served) < 2:
                await asyncio.sleep(0.005)
        await client.dispatcher.close("enough")
        records = await client.ended(5)
    assert [record.status for record in records] == [
        *[RequestStatus.UNFINISHED] * 2,
        *[RequestStatus.CAPPED] * 3,
    ]


async def test_requests_wait_for_connections_that_die() -> None:
    settings = MockSettings(law=QUICK, num_tokens=2, faults=FaultMix({Fault.RESET: 1.0}))
    async with mocked(settings, Limits(max_connections=1)) as (client, _):
        client.send(*(planned(index) for index in range(6)))
        records = await client.ended(6)
    assert {record.status for record in records} == {RequestStatus.RESET}


async def test_a_request_that_cannot_be_written_down_fails_alone() -> None:
    odd = replace(planned(1), headers=(("x-tenant", "no\r\nheader"),))
    async with mocked(limits=Limits(max_connections=1)) as (client, _):
        client.send(planned(0), odd, planned(2))
        records = await client.ended(3)
    assert [record.ok for record in records] == [True, False, True]
    assert records[1].status is RequestStatus.UNSENT
    assert "x-tenant" in records[1].error


async def test_a_bug_in_reading_a_reply_ends_that_exchange_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Exchange.body

    def body(self: Exchange, data: bytes, now_s: float) -> bool:
        if self.planned.slot.index == 1:
            raise RuntimeError("an odd reply")
        return real(self, data, now_s)

    monkeypatch.setattr(Exchange, "body", body)
    async with mocked(limits=Limits(max_connections=1)) as (client, _):
        client.send(*(planned(index) for index in range(3)))
        records = await client.ended(3)
    assert [record.ok for record in records] == [True, False, True]
    assert records[1].error == "could not be read: RuntimeError"


async def test_a_body_larger_than_the_sockets_buffer_arrives_whole() -> None:
    large = replace(planned(0), body=BODY[:-1] + b',"user":"' + b"x" * (16 << 20) + b'"}')
    async with mocked() as (client, _):
        client.send(large)
        (record,) = await client.ended(1)
    assert record.ok
    assert record.prompt_tokens == len(large.body) // 4


async def test_a_unix_socket_works(tmp_path: Path) -> None:
    settings = MockSettings(law=QUICK, num_tokens=2, unix_path=str(tmp_path / "mock.sock"))
    async with mocked(settings) as (client, _):
        client.send(planned(0))
        assert (await client.ended(1))[0].ok


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a self-signed certificate for 127.0.0.1, in one file."""
    import datetime
    import ipaddress

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mock")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "mock.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_tls_is_verified_against_the_given_authority(certificate: Path) -> None:
    settings = MockSettings(law=QUICK, num_tokens=2, tls_cert=str(certificate))

    def trusting(url: str) -> Target:
        return Target(url=url, ca_file=str(certificate))

    async with mocked(settings, change=trusting) as (client, _):
        client.send(planned(0))
        assert (await client.ended(1))[0].ok
    async with mocked(settings) as (client, _):
        client.send(planned(0))
        (record,) = await client.ended(1)
    assert record.status is RequestStatus.CONNECT
    assert record.error.startswith("TLS: ")


@contextlib.asynccontextmanager
async def tunnelling_proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that connects anybody to anybody; its URL and whom it connected to."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        host, port = head.split(b" ")[1].decode().split(":")
        asked.append(f"{host}:{port}")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        both = (pump(reader, upstream_writer), pump(upstream_reader, writer))
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


async def test_https_goes_through_a_proxys_tunnel(certificate: Path) -> None:
    settings = MockSettings(law=QUICK, num_tokens=2, tls_cert=str(certificate))
    async with tunnelling_proxy() as (proxy_url, asked):

        def through(url: str) -> Target:
            return Target(url=url, ca_file=str(certificate), proxy_url=proxy_url)

        async with mocked(settings, change=through) as (client, _):
            client.send(planned(0))
            assert (await client.ended(1))[0].ok
    assert len(asked) == 1


async def test_a_reply_at_full_speed_without_end_is_given_up_as_too_long() -> None:
    gone = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while not writer.is_closing():
                writer.write(TOKEN * 500)
                await writer.drain()
        gone.set()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    async with server:
        client = Client(
            Target(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Limits()
        )
        client.send(planned(0))
        (record,) = await client.ended(1)
        await asyncio.wait_for(gone.wait(), 60.0)  # its connection was closed at once
        await client.dispatcher.close("the test is over")
    assert record.status is RequestStatus.TOO_LONG
    assert "too long" in record.error
    assert len(record.content_offsets_s) > FREE_EVENTS


def test_a_reply_of_nothing_but_pings_is_given_up_too() -> None:
    ended: list[RequestStatus] = []
    exchange = Exchange(
        planned(0), 0.0, start_s=0.0, ended=lambda _, record: ended.append(record.status)
    )
    ping = b": " + b"x" * (1 << 20) + b"\n\n"
    num = next(number for number in range(200) if exchange.body(ping, 1.0))
    assert ended == [RequestStatus.TOO_LONG]
    assert num >= (FREE_BYTES >> 20) - 1
