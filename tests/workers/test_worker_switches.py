"""This file is about role switches, drains and broken engines while pretend workers serve."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from epidote_core.errors import WorkerLost
from epidote_core.generation import Choice, Route, TokenChunk
from epidote_core.roles import Role, WorkerState
from epidote_workers.fake_fleet import ask_for, fleet_of, picture, pretend
from epidote_workers.fake_tokens import answer
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import until
from epidote_workers.lifecycle import DrainPolicy

E, P, D, ALL = Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL
SPLIT = Route(prefill="p", decode="d")


async def held(engine: FakeEngine) -> None:
    """Until the engine has stopped by itself in mid-stream, as told; it goes on with `go`."""
    await until(lambda: not engine.go.is_set())
    engine.hold_at_tokens = None


async def rest_of(stream: AsyncIterator[list[TokenChunk]], tokens: list[int]) -> str:
    """Append what still comes; the worker that was lost, "" at a good end."""
    try:
        async for chunks in stream:
            tokens += [token for chunk in chunks for token in chunk.token_ids]
    except WorkerLost as lost:
        return lost.worker_id
    return ""


@pytest.mark.parametrize("policy", list(DrainPolicy))
async def test_a_draining_decoder_hands_back_or_waits(tmp_path: Path, policy: DrainPolicy) -> None:
    async with fleet_of(tmp_path, p=P, d=D, d2=D) as fleet:
        request, engine = ask_for("long", tokens=300), pretend(fleet, "d")
        engine.hold_at_tokens = 5  # the stream outlasts the grace period, however slow this is
        async with aclosing(fleet.client.generate(request, SPLIT)) as stream:
            tokens = [t for chunk in await anext(stream) for t in chunk.token_ids]
            await held(engine)
            switching = asyncio.create_task(
                fleet.workers["d"].switch_role(P, deadline_s=60.0, drain=policy, grace_s=0.02)
            )
            reading = asyncio.create_task(rest_of(stream, tokens))
            if policy is DrainPolicy.WAIT:
                await asyncio.sleep(0.1)
                assert not reading.done()
                engine.go.set()
            loser = await reading
        engine.go.set()
        assert loser == ("d" if policy is DrainPolicy.MIGRATE else "")
        if loser:
            rest = replace(request, choices=(Choice(emitted_token_ids=tuple(tokens)),))
            tokens += (await fleet.ask(rest, Route(prefill="p", decode="d2")))[0]
        assert tokens == answer(request)
        outcome = await switching
        assert outcome.ok, outcome
        assert outcome.epoch == 2


async def test_a_drain_past_its_deadline_is_undone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        request, engine = ask_for("long", tokens=300), pretend(fleet, "d")
        engine.hold_at_tokens = 5
        async with aclosing(fleet.client.generate(request, SPLIT)) as stream:
            tokens = [t for chunk in await anext(stream) for t in chunk.token_ids]
            await held(engine)
            outcome = await fleet.client.switch_role("d", P, deadline_s=0.1, drain=DrainPolicy.WAIT)
            engine.go.set()
            assert not outcome.ok
            assert "drained" in outcome.message
            assert fleet.workers["d"].view().role is D
            assert await rest_of(stream, tokens) == ""
            assert tokens == answer(request)
        assert (await fleet.ask(ask_for("again"), SPLIT))[0] == answer(ask_for("again"))


async def test_a_role_that_cannot_be_taken_is_given_back(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        pretend(fleet, "p").fail_next_role = D
        outcome = await fleet.client.switch_role("p", D, deadline_s=60.0)
        assert not outcome.ok
        assert "pretend failure" in outcome.message
        view = fleet.workers["p"].view()
        assert (view.role, view.state, view.epoch) == (P, WorkerState.ROUTABLE, 1)
        assert (await fleet.ask(ask_for("r"), SPLIT))[0] == answer(ask_for("r"))


async def test_a_switch_for_another_epoch_is_refused(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P) as fleet:
        worker = fleet.workers["p"]
        outcome = await worker.switch_role(D, deadline_s=60.0, expected_epoch=7)
        assert not outcome.ok
        assert worker.view().role is P


async def test_an_engine_that_breaks_loses_its_worker(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        engine = pretend(fleet, "d")
        engine.hold_at_tokens = 5

        def broken() -> list[object]:
            raise ValueError("broken on purpose")

        async with aclosing(fleet.client.generate(ask_for("long", tokens=300), SPLIT)) as stream:
            await anext(stream)
            await held(engine)
            engine.step = broken  # type: ignore[method-assign,assignment]
            engine.go.set()
            assert await rest_of(stream, []) == "d"
        assert "broken on purpose" in str(fleet.workers["d"].failure)
        await until(lambda: fleet.client.workers()[1].state is WorkerState.FAILED)


async def test_drain_for_ever_ends_with_nothing_at_work(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        engine = pretend(fleet, "d")
        engine.hold_at_tokens = 5
        async with aclosing(fleet.client.generate(ask_for("long", tokens=300), SPLIT)) as stream:
            await anext(stream)
            await held(engine)
            draining = asyncio.create_task(fleet.workers["d"].drain(deadline_s=60.0, grace_s=0.02))
            assert await rest_of(stream, []) == "d"
        engine.go.set()
        await draining
        assert fleet.workers["d"].view().state is WorkerState.DRAINING


async def test_thirty_streams_through_switches_in_all_directions(tmp_path: Path) -> None:
    """Nothing fails, no token differs, nothing leaks."""
    roles = {"e1": E, "e2": E, "p1": P, "p2": P, "d1": D, "d2": D, "a": ALL}
    delays = {"step_s": 0.001, "layer_s": 0.0005}
    async with fleet_of(tmp_path, delays, None, **roles) as fleet:
        rng = random.Random(5)
        all_switched = asyncio.Event()
        finished: list[str] = []
        losses = 0

        async def user(number: int) -> None:
            nonlocal losses
            mine = random.Random(number)
            while not all_switched.is_set() or len(finished) < 60:
                name = f"u{number}.{len(finished)}.{mine.random()}"
                keys = mine.sample("abcdefgh", mine.randint(0, 3))
                pictures = [picture(key, 3 + ord(key) % 9) for key in keys]
                request = ask_for(
                    name, prompt=mine.randint(1, 150), tokens=mine.randint(1, 60), pictures=pictures
                )
                asking = asyncio.create_task(fleet.ask_until_done(request, pictures, mine))
                if mine.random() < 0.2:
                    await asyncio.sleep(mine.random() * 0.3)
                    asking.cancel()  # wherever it is
                    await asyncio.gather(asking, return_exceptions=True)
                    continue
                tokens, lost = await asking
                assert tokens == answer(request, pictures)
                finished.append(name)
                losses += lost

        async def switcher() -> None:
            moves = [(P, E), (E, D), (D, P), (P, D), (D, E), (E, P)]
            for before, after in 2 * moves:
                holders = [w for w in fleet.client.workers() if w.role is before]
                outcome = await fleet.client.switch_role(
                    rng.choice(holders).worker_id, after, deadline_s=60.0
                )
                assert outcome.ok, outcome
                await asyncio.sleep(0.1)
            all_switched.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(switcher())
            for number in range(30):
                group.create_task(user(number))
        print(len(finished), "requests", losses, "losses")
