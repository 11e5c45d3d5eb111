"""This file is about what workers count of their copies, and that their owners hear of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from epidote_core.generation import Route
from epidote_core.roles import Role
from epidote_core.transfer_count import Direction, Transfer, TransferCount, summed
from epidote_gateway.backend import Backend
from epidote_gateway.fleet_metrics import FleetCollector
from epidote_workers import pool_lending
from epidote_workers.client import FleetClient
from epidote_workers.fake_fleet import ask_for, fleet_of, picture
from epidote_workers.in_process_fleet import InProcessFleet, until
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.layout import as_units, kv_layout, media_layout
from epidote_workers.transfer.meter import MeteredPool, TransferMeter, seen_by_owner
from epidote_workers.transfer.shared_memory import MappedPool
from epidote_workers.transfer.transport import LocalPool

E, P, D = Role.ENCODE, Role.PREFILL, Role.DECODE
ROUTE = Route(prefill="p", decode="d", encode=(("x", "e"), ("y", "e")))
COUNTS = st.builds(
    TransferCount,
    transport=st.sampled_from(["shared_memory", "nixl"]),
    kind=st.sampled_from(Transfer),
    direction=st.sampled_from(Direction),
    num_copies=st.integers(0, 5),
    num_bytes=st.integers(0, 1 << 40),
    busy_s=st.integers(0, 1000).map(float),  # sums of whole numbers are exact in any order
)


@pytest.fixture
def copies() -> Iterator[CopyThread]:
    thread = CopyThread()
    yield thread
    thread.close()


@given(counts=st.lists(COUNTS), cut=st.integers(0, 20))
def test_sums_do_not_depend_on_how_counts_are_put_together(
    counts: list[TransferCount], cut: int
) -> None:
    whole = summed(counts)
    assert summed((*summed(counts[cut:]), *summed(counts[:cut]))) == whole
    keys = [(one.transport, one.kind, one.direction) for one in whole]
    assert keys == sorted(set(keys))
    for field in ("num_copies", "num_bytes", "busy_s"):
        assert sum(getattr(x, field) for x in whole) == sum(getattr(x, field) for x in counts)
    assert sum(x.num_bytes for x in seen_by_owner(whole)) == sum(x.num_bytes for x in counts)


async def test_a_read_is_counted_with_its_bytes_and_a_failed_one_is_not(
    copies: CopyThread,
) -> None:
    kv, media = torch.zeros(2, 2, 8, 4, 1, 8), torch.zeros(6, 16)
    meters = (TransferMeter(), TransferMeter())
    for tensor, layout, units, layers in (
        (kv, kv_layout(kv, "m"), [1, 4], range(2)),
        (media, media_layout(media, "m"), [5], range(1)),
    ):
        pool = LocalPool(as_units(tensor, layout), layout)
        peer = MappedPool(as_units(tensor.clone(), layout), layout, copies)
        metered = MeteredPool(peer, layout.name, meters)
        num_bytes = await metered.read(units, pool, units, layers)
        assert num_bytes == len(units) * len(layers) * layout.unit_bytes
        with pytest.raises((IndexError, RuntimeError)):
            await metered.read([99], pool, [0], layers)
    for meter in meters:
        found = {one.kind: one for one in meter.counts}
        assert found.keys() == {Transfer.KV, Transfer.EMBEDDINGS}
        assert found[Transfer.KV].num_bytes == 2 * 2 * 2 * 4 * 8 * 4
        assert found[Transfer.EMBEDDINGS].num_bytes == 16 * 4
        assert all(one.num_copies == 1 and one.busy_s > 0 for one in found.values())
    assert meters[0].take() == meters[1].counts
    assert meters[0].counts == ()


def seen(fleet: InProcessFleet, worker_id: str) -> dict[tuple[str, str], TransferCount]:
    """What the client knows of one worker's copies, by kind and direction."""
    view = next(view for view in fleet.client.workers() if view.worker_id == worker_id)
    return {(one.kind, one.direction): one for one in view.load.transfers}


def sizes(count: TransferCount | None) -> tuple[str, int, int] | None:
    """What both sides must agree on; seconds are summed in another order."""
    return count and (count.transport, count.num_copies, count.num_bytes)


async def told(fleet: InProcessFleet) -> None:
    """Until the owners know everything that was copied from them."""

    def is_told() -> bool:
        pairs = (
            (seen(fleet, "d").get(("kv", "in")), seen(fleet, "p").get(("kv", "out"))),
            (
                seen(fleet, "p").get(("embeddings", "in")),
                seen(fleet, "e").get(("embeddings", "out")),
            ),
        )
        return all(ours is not None and sizes(ours) == sizes(theirs) for ours, theirs in pairs)

    await until(is_told)


@pytest.mark.parametrize("are_near", [True, False])
async def test_peers_and_gateways_hear_what_went_which_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_near: bool
) -> None:
    monkeypatch.setenv("EPIDOTE_RPC_SECRET", "between hosts")
    monkeypatch.setattr(pool_lending, "open_agent", lambda name: None)  # NIXL: test_nixl.py
    host = None if are_near else "127.0.0.1"
    transport = "shared_memory" if are_near else "connection"
    async with fleet_of(tmp_path) as fleet:
        for worker_id, role in (("e", E), ("p", P), ("d", D)):
            await fleet.add(worker_id, role, tcp_host=host)
        fleet.client = FleetClient()
        await fleet.connect()
        pictures = [picture("x", 5), picture("y", 30)]
        await fleet.ask(ask_for("r", prompt=200, pictures=pictures), ROUTE, pictures)
        await told(fleet)
        kv, rows = seen(fleet, "d")["kv", "in"], seen(fleet, "p")["embeddings", "in"]
        assert kv.transport == rows.transport == transport
        pool = fleet.engines["d"].kv_pool.tensor
        of_prompt = -(-(200 + 41) // pool.shape[3]) * pool[:, :, 0].nbytes
        assert kv.num_bytes >= of_prompt, "every block once at least; blocks of two chunks twice"
        assert rows.num_bytes == 35 * fleet.engines["p"].media_pool.tensor[0].nbytes
        assert rows.num_copies == 2
        assert ("kv", "out") not in seen(fleet, "d")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FleetCollector(cast(Backend, fleet.client), "m"))
        text = generate_latest(registry).decode()
    for direction in ("in", "out"):
        labels = f'{{direction="{direction}",kind="kv",transport="{transport}"}}'
        assert f"epidote_transfer_bytes_total{labels} {float(kv.num_bytes)}" in text, text
        assert f"epidote_transfer_copies_total{labels} {float(kv.num_copies)}" in text


async def test_an_owner_that_is_gone_is_not_told_and_nobody_minds(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, p=P, q=P, d=D) as fleet:
        await fleet.ask(ask_for("r"), Route(prefill="p", decode="d"))
        await fleet.workers.pop("p").stop()
        await until(lambda: ("kv", "in") in seen(fleet, "d"))
        first = seen(fleet, "d")["kv", "in"]
        await fleet.ask(ask_for("s"), Route(prefill="q", decode="d"))
        await until(lambda: seen(fleet, "d")["kv", "in"].num_copies > first.num_copies)
        await until(lambda: ("kv", "out") in seen(fleet, "q"))
        assert fleet.workers["d"].failure is None
