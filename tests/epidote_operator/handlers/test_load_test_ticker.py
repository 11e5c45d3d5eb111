"""When LoadTests are looked at: those that go on, and those in trouble less and less often."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.handlers.load_test_ticker import MAX_PAUSE_S, LoadTestTicker


@dataclass
class Looks:
    """Stands for `LoadTests`: counts looks, and fails at some."""

    broken: set[str] = field(default_factory=set)
    at_s: dict[str, list[float]] = field(default_factory=dict)

    async def reconcile(self, resource: dict[str, Any], now_s: float) -> None:
        name = resource["metadata"]["name"]
        self.at_s.setdefault(name, []).append(now_s)
        if name in self.broken:
            raise RuntimeError("refused")


async def watched(looks: Looks, tests: dict[str, str], seconds: int) -> None:
    now = [1000.0]
    ticker = LoadTestTicker(
        load_tests=looks,  # type: ignore[arg-type]
        listed=lambda: [
            (("ns", name), {"metadata": {"name": name}, "status": {"phase": phase}})
            for name, phase in tests.items()
        ],
        is_active=lambda: True,
        clock=lambda: now[0],
    )
    for _ in range(seconds):
        await ticker.look()
        now[0] += 1.0


async def test_one_in_trouble_is_looked_at_less_and_less_often_and_the_others_as_ever() -> None:
    looks = Looks(broken={"bad"})
    await watched(looks, {"bad": "Pending", "good": "Running"}, 600)
    assert len(looks.at_s["good"]) == 600
    bad = looks.at_s["bad"]
    pauses = [later - sooner for sooner, later in itertools.pairwise(bad)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == MAX_PAUSE_S, "never given up"


async def test_once_it_is_well_it_is_looked_at_every_second_again() -> None:
    looks = Looks(broken={"bad"})
    now = [0.0]
    ticker = LoadTestTicker(
        load_tests=looks,  # type: ignore[arg-type]
        listed=lambda: [(("ns", "bad"), {"metadata": {"name": "bad"}})],
        is_active=lambda: True,
        clock=lambda: now[0],
    )
    for now[0] in (0.0, 1.0, 3.0, 7.0):
        await ticker.look()
    looks.broken.clear()
    for now[0] in (15.0, 16.0, 17.0):
        await ticker.look()
    assert looks.at_s["bad"] == [0.0, 1.0, 3.0, 7.0, 15.0, 16.0, 17.0]


async def test_what_has_ended_is_left_alone() -> None:
    looks = Looks()
    await watched(looks, {"done": "Finished", "broken": "Failed"}, 3)
    assert looks.at_s == {}
