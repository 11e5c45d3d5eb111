"""This file is about requests through split workers with a pretend engine: races, losses, drains.

The pretend engine's tokens depend on every number that was copied: a block or row copied wrongly,
too early, or to the wrong place changes the answer.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epidote_core.errors import InvalidRequest, Overloaded, WorkerLost
from epidote_core.generation import (
    Choice,
    GenerateRequest,
    MediaKind,
    MediaPixels,
    MediaSpan,
    Route,
)
from epidote_core.roles import Role, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_core.worker_view import WorkerView
from epidote_engine.settings import EngineConfig
from epidote_workers.client import FleetClient
from epidote_workers.fake_tokens import answer
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import InProcessFleet, Lost, running, until
from epidote_workers.lifecycle import DrainPolicy
from epidote_workers.self_check import tiny_picture

E, P, D, ALL = Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL


@asynccontextmanager
async def fleet_of(
    directory: Path,
    delays: dict[str, float] | None = None,
    config: dict[str, Any] | None = None,
    **roles: Role,
) -> AsyncIterator[InProcessFleet]:
    """Pretend workers; at the end nothing may be leaked."""
    sizes = {"num_kv_blocks": 96, "num_media_rows": 96, "chunk_tokens": 24, **(config or {})}
    fleet = InProcessFleet(
        directory,
        EngineConfig(model="pretend", **sizes),
        make_engine=lambda config, allocate: FakeEngine(config, allocate, **(delays or {})),
        tiny_pixels=lambda key: tiny_picture(key, 4, 1),
    )
    async with running(fleet, roles):
        yield fleet
        assert await fleet.leaks() == {}


def pretend(fleet: InProcessFleet, worker_id: str) -> FakeEngine:
    engine = fleet.engines[worker_id]
    assert isinstance(engine, FakeEngine)
    return engine


def picture(key: str, num_tokens: int) -> MediaPixels:
    return MediaPixels(
        key=key,
        kind=MediaKind.IMAGE,
        num_frames=1,
        height=4,
        width=4,
        grid_thw=(1, 1, num_tokens),
        num_tokens=num_tokens,
        data=key.encode().ljust(48, b"."),
    )


def ask_for(
    name: str,
    *,
    prompt: int = 60,
    tokens: int = 12,
    pictures: Sequence[MediaPixels] = (),
    choices: int = 1,
    temperature: float = 1.0,
) -> GenerateRequest:
    ids = list(range(prompt))
    spans = []
    for pixels in pictures:
        spans.append(
            MediaSpan(
                key=pixels.key,
                kind=pixels.kind,
                offset=len(ids),
                num_tokens=pixels.num_tokens,
                grid_thw=pixels.grid_thw,
            )
        )
        ids += [7] * pixels.num_tokens + [1, 2, 3]
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(ids),
        sampling=SamplingParams(max_tokens=tokens, temperature=temperature, seed=len(name)),
        media=tuple(spans),
        choices=tuple(Choice(index=index) for index in range(choices)),
        cache_salt=name,
    )


SPLIT = Route(prefill="p", decode="d")


async def test_split_answers_as_one(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, a=ALL, e=E, p=P, d=D) as fleet:
        pictures = [picture("x", 5), picture("y", 30)]
        for number, chosen in enumerate(([], pictures, pictures)):
            request = ask_for(f"r{number}", pictures=chosen, choices=3)
            expected = {i: answer(request, pictures, choice=i) for i in range(3)}
            for prefill, decode, encode in ("aaa", "pde", "ade", "paa", "aae"):
                route = Route(
                    prefill=prefill,
                    decode=decode,
                    encode=tuple((pixels.key, encode) for pixels in chosen),
                )
                assert await fleet.ask(request, route, chosen) == expected


async def test_workers_of_other_hosts_copy_over_tcp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other node ids: nothing is mapped, blocks and rows are packed and sent, after the secret."""
    monkeypatch.setenv("EPIDOTE_RPC_SECRET", "between hosts")
    async with fleet_of(tmp_path) as fleet:
        for worker_id, role in (("e", E), ("p", P), ("d", D)):
            await fleet.add(worker_id, role, tcp_host="127.0.0.1")
        fleet.client = FleetClient()
        await fleet.connect()
        assert all(view.address.startswith("tcp:") for view in fleet.client.workers())
        pictures = [picture("x", 5), picture("y", 30)]
        request = ask_for("r", prompt=200, pictures=pictures)
        route = replace(SPLIT, encode=(("x", "e"), ("y", "e")))
        assert (await fleet.ask(request, route, pictures))[0] == answer(request, pictures)


async def test_blocks_that_the_decoder_has_are_not_copied_again(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        request = ask_for("same", prompt=100)
        moved = []
        for _ in range(2):
            async for chunks in fleet.client.generate(request, SPLIT):
                moved += [
                    timing.num_bytes
                    for chunk in chunks
                    for timing in chunk.timings
                    if timing.stage == "transfer"
                ]
        block_bytes = 4 * 2 * 16 * 8 * 4
        assert moved[0] >= 7 * block_bytes
        assert moved[1] == block_bytes, "only the last, partial block"


async def test_text_does_not_wait_for_pictures(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, e=E, p=P, d=D) as fleet:
        slow = picture("never", 4)
        request = ask_for("picture", pictures=[slow])
        route = replace(SPLIT, encode=(("never", "e"),))

        async def read() -> list[int]:
            chunks = [c async for some in fleet.client.generate(request, route) for c in some]
            return [token for chunk in chunks for token in chunk.token_ids]

        waiting = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        for number in range(3):
            text = ask_for(f"text{number}")
            assert (await fleet.ask(text, SPLIT))[0] == answer(text)
        assert not waiting.done()
        await fleet.client.encode("e", slow, request_id="picture")
        assert await waiting == answer(request, [slow])


async def test_closing_the_stream_frees_every_stage(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.002}, e=E, p=P, d=D) as fleet:
        never = picture("never", 4)
        pictured = ask_for("picture", pictures=[never])
        with_picture = replace(SPLIT, encode=(("never", "e"),))
        for request, route, pause_s in (
            (ask_for("early"), SPLIT, 0.0),
            (ask_for("late", tokens=500), SPLIT, 0.1),
            (pictured, with_picture, 0.05),
        ):
            stream = fleet.client.generate(request, route)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(pause_s)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await stream.aclose()
            assert await fleet.leaks() == {}


async def test_a_worker_refuses_what_its_role_does_not_serve(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, e=E, p=P, d=D) as fleet:
        for route, refuser in (
            (Route(prefill="p", decode="p"), "p"),
            (Route(prefill="d", decode="d"), "d"),
            (Route(prefill="e", decode="d"), "e"),
            (Route(prefill="p", decode="gone"), "gone"),
            (Route(prefill="gone", decode="d"), "gone"),
        ):
            with pytest.raises(Lost) as lost:
                await fleet.ask(ask_for("r"), route)
            assert lost.value.worker_id == refuser
        with pytest.raises(WorkerLost):
            await fleet.client.encode("p", picture("x", 4), request_id="r")


async def test_errors_of_the_engine_are_the_clients_answer(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, a=ALL, e=E, p=P, d=D) as fleet:
        long = ask_for("long", prompt=3000)
        for route in (SPLIT, Route(prefill="a", decode="a")):
            with pytest.raises(InvalidRequest, match="blocks"):
                await fleet.ask(long, route)
        huge = picture("huge", 97)
        with pytest.raises(InvalidRequest):
            await fleet.ask(
                ask_for("huge", pictures=[huge]), replace(SPLIT, encode=(("huge", "e"),)), [huge]
            )


async def test_a_full_encoder_says_so(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.02}, e=E) as fleet:
        results = await asyncio.gather(
            *(fleet.client.encode("e", picture(f"k{n}", 4), request_id="r") for n in range(40)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Overloaded) for result in results) >= 20


@pytest.mark.parametrize("num_blocks", [20, 400])
async def test_few_rows_and_blocks_make_requests_wait_and_not_fail(
    tmp_path: Path, num_blocks: int
) -> None:
    """Room for the media of one request at a time, in every worker; two share each picture."""
    few = {"num_kv_blocks": num_blocks, "num_media_rows": 24}
    async with fleet_of(tmp_path, config=few, e1=E, e2=E, p=P, d=D, a=ALL) as fleet:

        async def one(number: int) -> None:
            pictures = [picture(f"{number % 4}{side}", 10) for side in "ab"]
            request = ask_for(f"r{number}", pictures=pictures)
            route = replace(SPLIT, encode=((pictures[0].key, "e1"), (pictures[1].key, "e2")))
            if number % 3 == 0:
                local = tuple((pixels.key, "a") for pixels in pictures)
                route = Route(prefill="a", decode="a", encode=local)
            assert (await fleet.ask(request, route, pictures))[0] == answer(request, pictures)

        await asyncio.gather(*map(one, range(24)))


@pytest.mark.parametrize("policy", list(DrainPolicy))
async def test_a_draining_decoder_hands_back_or_waits(tmp_path: Path, policy: DrainPolicy) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.002}, p=P, d=D, d2=D) as fleet:
        request = ask_for("long", tokens=300)
        stream = fleet.client.generate(request, SPLIT)
        tokens = [t for chunk in await anext(stream) for t in chunk.token_ids]
        switching = asyncio.create_task(
            fleet.client.switch_role("d", P, deadline_s=5.0, drain=policy)
        )
        loser = None
        try:
            async for chunks in stream:
                tokens += [token for chunk in chunks for token in chunk.token_ids]
        except WorkerLost as lost:
            loser = lost.worker_id
        assert (loser == "d") == (policy is DrainPolicy.MIGRATE)
        if loser:
            rest = replace(request, choices=(Choice(emitted_token_ids=tuple(tokens)),))
            tokens += (await fleet.ask(rest, Route(prefill="p", decode="d2")))[0]
        assert tokens == answer(request)
        outcome = await switching
        assert outcome.ok
        assert outcome.epoch == 2
        assert (outcome.drain_s > 0.4) == (policy is DrainPolicy.WAIT)


async def test_a_drain_past_its_deadline_is_undone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.002}, p=P, d=D) as fleet:
        request = ask_for("long", tokens=300)
        reading = asyncio.create_task(fleet.ask(request, SPLIT))
        await asyncio.sleep(0.1)
        outcome = await fleet.client.switch_role("d", P, deadline_s=0.1, drain=DrainPolicy.WAIT)
        assert not outcome.ok
        assert "drained" in outcome.message
        assert fleet.workers["d"].view().role is D
        assert (await reading)[0] == answer(request)
        assert (await fleet.ask(ask_for("again"), SPLIT))[0] == answer(ask_for("again"))


async def test_a_role_that_cannot_be_taken_is_given_back(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, d=D) as fleet:
        pretend(fleet, "p").fail_next_role = D
        outcome = await fleet.client.switch_role("p", D, deadline_s=1.0)
        assert not outcome.ok
        assert "pretend failure" in outcome.message
        view = fleet.workers["p"].view()
        assert (view.role, view.state, view.epoch) == (P, WorkerState.ROUTABLE, 1)
        assert (await fleet.ask(ask_for("r"), SPLIT))[0] == answer(ask_for("r"))


async def test_a_switch_for_another_epoch_is_refused(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P) as fleet:
        worker = fleet.workers["p"]
        outcome = await worker.switch_role(D, deadline_s=1.0, expected_epoch=7)
        assert not outcome.ok
        assert worker.view().role is P


async def test_an_engine_that_breaks_loses_its_worker(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.002}, p=P, d=D) as fleet:
        reading = asyncio.create_task(fleet.ask(ask_for("long", tokens=300), SPLIT))
        await asyncio.sleep(0.05)

        def broken() -> list[object]:
            raise ValueError("broken on purpose")

        pretend(fleet, "d").step = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(Lost) as lost:
            await reading
        assert lost.value.worker_id == "d"
        assert "broken on purpose" in str(fleet.workers["d"].failure)
        await until(lambda: fleet.client.workers()[1].state is WorkerState.FAILED)


async def test_drain_for_ever_ends_with_nothing_at_work(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, {"step_s": 0.002}, p=P, d=D) as fleet:
        reading = asyncio.create_task(fleet.ask(ask_for("long", tokens=3000 // 4), SPLIT))
        await asyncio.sleep(0.05)
        await fleet.workers["d"].drain(deadline_s=5.0, grace_s=0.05)
        with pytest.raises(Lost):
            await reading
        assert fleet.workers["d"].view().state is WorkerState.DRAINING


async def test_cache_names_reach_the_client(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, e=E, p=P, d=D) as fleet:
        pixels = picture("x", 4)
        route = replace(SPLIT, encode=(("x", "e"),))
        await fleet.ask(ask_for("r", pictures=[pixels]), route, [pixels])

        def views() -> dict[str, WorkerView]:
            return {view.worker_id: view for view in fleet.client.workers()}

        await until(lambda: "x" in views()["e"].media_keys)
        await until(lambda: len(views()["p"].block_hashes) == 4)
        await until(lambda: len(views()["d"].block_hashes) == 4)


async def test_thirty_streams_through_switches_in_all_directions(tmp_path: Path) -> None:
    """Nothing fails, no token differs, nothing leaks."""
    roles = {"e1": E, "e2": E, "p1": P, "p2": P, "d1": D, "d2": D, "a": ALL}
    delays = {"step_s": 0.001, "layer_s": 0.0005}
    async with fleet_of(tmp_path, delays, None, **roles) as fleet:
        rng = random.Random(5)
        end_s = time.monotonic() + 6.0
        finished: list[str] = []
        losses = 0

        async def user(number: int) -> None:
            nonlocal losses
            mine = random.Random(number)
            while time.monotonic() < end_s:
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
            while time.monotonic() < end_s:
                for before, after in moves:
                    holders = [w for w in fleet.client.workers() if w.role is before]
                    if len(holders) < 2:
                        continue
                    outcome = await fleet.client.switch_role(
                        rng.choice(holders).worker_id, after, deadline_s=5.0
                    )
                    assert outcome.ok, outcome
                    outcomes.append(outcome)
                    await asyncio.sleep(0.1)

        outcomes: list[object] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(switcher())
            for number in range(30):
                group.create_task(user(number))
        print(len(finished), "requests", losses, "losses", len(outcomes), "switches")
        assert len(outcomes) >= 6
        assert len(finished) > 30
