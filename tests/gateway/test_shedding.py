"""A share of requests is refused while an operator asks for it, exactly, and no longer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_gateway.shedding import HOLD_S, Shedding

CHAT = "/v1/chat/completions"


@given(ratio=st.floats(0.0, 1.0), count=st.integers(1, 300))
def test_the_share_is_exact_at_any_number_of_requests(ratio: float, count: int) -> None:
    shedding = Shedding(lambda: 0.0)
    shedding.tell(ratio)
    refused = sum(shedding.refuses_next() for _ in range(count))
    assert abs(refused - ratio * count) <= 1.0


def test_an_order_that_nobody_renews_is_forgotten() -> None:
    now_s = 0.0
    shedding = Shedding(lambda: now_s)
    shedding.tell(1.0)
    assert shedding.refuses_next()
    now_s = HOLD_S
    assert not shedding.refuses_next()
    assert shedding.ratio == 0.0


def test_no_share_is_none_or_everything_and_more() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        Shedding(lambda: 0.0).tell(1.5)


async def test_shed_requests_are_told_when_to_come_back(client: Any, chat: Any) -> None:
    answer = await client.put("/admin/shed", json={"ratio": 0.5})
    assert (answer.status_code, answer.json()) == (200, {"ratio": 0.5})
    statuses = []
    for _ in range(4):
        answer = await client.post(CHAT, json=chat("hi"))
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
    assert sorted(statuses) == [200, 200, 429, 429]
    await client.put("/admin/shed", json={"ratio": 0})
    assert (await client.post(CHAT, json=chat("hi"))).status_code == 200
    assert (await client.put("/admin/shed", json={"ratio": 2})).status_code == 400
