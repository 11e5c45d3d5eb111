"""This file is about requests through split workers with a pretend engine: races, refusals, room.

The pretend engine's tokens depend on every number that was copied: a block or row copied wrongly,
too early, or to the wrong place changes the answer.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from epidote_core.errors import InvalidRequest, Overloaded, WorkerLost
from epidote_core.generation import Route
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerView
from epidote_workers import pool_lending
from epidote_workers.client import FleetClient
from epidote_workers.fake_fleet import ask_for, fleet_of, picture, pretend
from epidote_workers.fake_tokens import answer
from epidote_workers.in_process_fleet import Lost, until

E, P, D, ALL = Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL
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
    monkeypatch.setattr(pool_lending, "open_agent", lambda name: None)  # NIXL: test_nixl.py
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
    async with fleet_of(tmp_path, e=E) as fleet:
        pretend(fleet, "e").go.clear()
        results = await asyncio.gather(
            *(fleet.client.encode("e", picture(f"k{n}", 4), request_id="r") for n in range(40)),
            return_exceptions=True,
        )
        pretend(fleet, "e").go.set()
        limit = fleet.settings.max_encode_queue
        assert sum(isinstance(result, Overloaded) for result in results) == 40 - limit


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


async def test_requests_that_wait_for_blocks_keep_no_engine_busy(tmp_path: Path) -> None:
    """An engine that looked again and again would take the processor from those waited for."""
    async with fleet_of(tmp_path, config={"num_kv_blocks": 10}, p=P, d=D) as fleet:
        pretend(fleet, "p").go.clear()
        requests = [ask_for(f"r{number}") for number in range(4)]  # five blocks each
        asking = [asyncio.create_task(fleet.ask(request, SPLIT)) for request in requests]
        await until(lambda: fleet.client.workers()[1].load.num_free_kv_blocks == 0)
        await until(lambda: fleet.client.workers()[1].load.num_waiting == 4)
        thread = fleet.workers["d"]._running.engine
        async with asyncio.timeout(60.0):
            while await thread.call(lambda engine: engine.has_work()):
                pass  # it has yet to find that there is no room
        steps = pretend(fleet, "d").num_steps
        await asyncio.sleep(0.1)
        assert pretend(fleet, "d").num_steps == steps
        pretend(fleet, "p").go.set()
        for request, asked in zip(requests, asking, strict=True):
            assert (await asked)[0] == answer(request)


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
