"""A part of the operator that ends or hangs is noticed: by the probes, and by the process's end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from epidote_operator.handlers.health import STALLED_S, Health, PartEnded, watch_over
from epidote_operator.handlers.http_server import serve_http
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.credentials import Credentials, NoCredentials
from epidote_operator.kube.leader import LeaderElection
from epidote_operator.telemetry import OperatorMetrics

Work = Callable[[], Coroutine[Any, Any, None]]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise OSError("token: no such file")


async def ends() -> None:
    return


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        ("lease", fails, "lease ended: OSError"),
        ("lease", ends, "lease ended: None"),
        ("kopf", fails, "kopf ended: OSError"),
    ],
)
async def test_the_end_of_one_part_ends_the_process_and_is_logged(
    name: str, part: Work, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    works = {"kopf": for_ever, "ticker": for_ever, "lease": for_ever, name: part}
    kopf, *parts = [asyncio.create_task(work(), name=name) for name, work in works.items()]
    with caplog.at_level(logging.CRITICAL), pytest.raises(PartEnded, match=why):
        await watch_over(kopf, parts, asyncio.Event())
    assert [record.__dict__["part"] for record in caplog.records] == [name]
    for task in (kopf, *parts):
        task.cancel()


async def test_a_polite_end_is_no_failure() -> None:
    stop = asyncio.Event()
    kopf, part = asyncio.create_task(for_ever()), asyncio.create_task(for_ever())
    asyncio.get_running_loop().call_soon(stop.set)
    await watch_over(kopf, [part], stop)
    part.cancel()
    kopf.cancel()


async def ends_the_way_of_kopf(part: "asyncio.Task[None]", error: Exception | None) -> None:
    part.cancel()
    await asyncio.sleep(0.01)
    if error is not None:
        raise error


async def test_kopf_that_took_the_signal_ends_everything_politely() -> None:
    """It cancels our parts before it ends itself."""
    part = asyncio.create_task(for_ever())
    kopf = asyncio.create_task(ends_the_way_of_kopf(part, None))
    await watch_over(kopf, [part], asyncio.Event())


async def test_kopf_that_cancels_our_parts_because_it_fails_is_heard_out() -> None:
    part = asyncio.create_task(for_ever())
    kopf = asyncio.create_task(ends_the_way_of_kopf(part, OSError("401")), name="kopf")
    with pytest.raises(PartEnded, match="kopf ended: OSError"):
        await watch_over(kopf, [part], asyncio.Event())


async def test_probes_follow_the_loops_and_the_lease() -> None:
    clock, trouble = Clock(), ""
    health = Health(clock, is_ready=lambda: True, lease_trouble=lambda: trouble)
    runner = await serve_http(OperatorMetrics(), health, "127.0.0.1", 0)
    port = runner.addresses[0][1]

    async def ask(path: str) -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as http:
            answer = await http.get(f"http://127.0.0.1:{port}{path}")
        return answer.status_code, answer.text.strip()

    try:
        health.turn("ticker")
        assert await ask("/healthz") == await ask("/readyz") == (200, "ok")
        trouble = "the lease could not be read"
        assert (await ask("/healthz"))[0] == 200, "a restart would not help"
        assert await ask("/readyz") == (503, trouble)
        clock.now_s += STALLED_S + 1
        stalled = (503, "ticker has not come round for 121 s")
        assert await ask("/healthz") == await ask("/readyz") == stalled
    finally:
        await runner.cleanup()


def election(api: KubeApi, clock: Clock) -> LeaderElection:
    return LeaderElection(
        api=api, namespace="ns", name="lease", identity="one", monotonic=clock, renew_s=0.01
    )


async def test_a_token_that_is_away_for_a_while_does_not_end_the_election(tmp_path: Path) -> None:
    """The kubelet replaces it; the file of a rotated token may be missing for a moment."""
    clock, turned = Clock(), 0
    missing = Credentials(
        server="http://127.0.0.1:1",
        ssl_context=httpx.create_ssl_context(),
        token_file=tmp_path / "token",
    )
    with pytest.raises(NoCredentials, match="token can't be read"):
        missing.headers()
    enough = asyncio.Event()

    def turn() -> None:
        nonlocal turned
        turned += 1
        if turned == 3:
            enough.set()

    async with KubeApi.connected(missing) as api:
        candidate = election(api, clock)
        candidate.turn = turn
        running = asyncio.create_task(candidate.run())
        async with asyncio.timeout(60.0):
            await enough.wait()
        assert not running.done()
        assert "yet" in candidate.trouble()
        running.cancel()
