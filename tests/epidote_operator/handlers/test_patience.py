"""A watch that is refused for long goes on when it is let in again."""

import asyncio
import logging
from typing import Any

import kopf
import pytest
from aiohttp import web
from kopf._cogs.clients import api, auth
from kopf._cogs.structs.credentials import ConnectionInfo

from epidote_operator.handlers import patience
from epidote_operator.handlers.patience import never_give_up

KOPFS_OWN = 9  # attempts
LOG = logging.getLogger(__name__)


@pytest.mark.parametrize("status", [403, 503])
async def test_a_watch_refused_more_often_than_kopf_asks_is_asked_for_again(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_S", (0.0,))
    monkeypatch.setattr(patience, "LAST_S", 0.0)
    num_asked = 0

    async def watched(_: web.Request) -> web.Response:
        nonlocal num_asked
        num_asked += 1
        refuses = num_asked <= 2 * KOPFS_OWN
        return web.json_response({"kind": "Status"}, status=status if refuses else 200)

    app = web.Application()
    app.router.add_get("/watched", watched)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    context = auth.APIContext(ConnectionInfo(server=f"http://127.0.0.1:{port}"))
    settings = kopf.OperatorSettings()
    never_give_up(settings)
    answers: list[Any] = []
    try:
        for _ in range(2):  # the second one begins anew
            async with asyncio.timeout(60.0):
                response = await api.request(
                    "get", "/watched", settings=settings, context=context, logger=LOG
                )
                answers.append(await response.json())
    finally:
        await context.close()
        await runner.cleanup()
    assert answers == [{"kind": "Status"}] * 2
    assert num_asked == 2 * KOPFS_OWN + 2


def test_waits_grow_and_stay_bounded() -> None:
    settings = kopf.OperatorSettings()
    never_give_up(settings)
    backoffs: Any = settings.networking.error_backoffs
    for _ in range(2):
        waits = [wait for wait, _ in zip(backoffs, range(1000), strict=False)]
        assert len(waits) == 1000
        assert waits == sorted(waits)
        assert waits[-1] == patience.LAST_S
