"""This file is about carrying blocks through Ray's object store, and leaving nothing in it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from epidote_workers.messages import READ, Packed
from epidote_workers.ray_patience import start_patiently, wait_for_slow_nodes
from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.client import connect
from epidote_workers.rpc.server import Server, Service
from epidote_workers.transfer import packed
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.layout import as_units, kv_layout
from epidote_workers.transfer.ray_objects import free_object, has_ray, put_object
from epidote_workers.transfer.transport import LocalPool

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 240.0
SHAPE = (2, 2, 30, 4, 2, 64)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    from ray._private import services

    def start() -> None:
        ray.init(
            address="local",  # never a cluster that happens to run here
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(services, "get_node", services.get_node)  # as it was, at the end
        wait_for_slow_nodes()
        start_patiently(start, ray.shutdown)
    yield
    ray.shutdown()


def pool(tensor: torch.Tensor) -> LocalPool:
    layout = kv_layout(tensor, "m")
    return LocalPool(as_units(tensor, layout), layout)


@pytest.mark.usefixtures("cluster")
async def test_blocks_travel_as_objects_and_are_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_ray()
    monkeypatch.setattr(packed, "MAX_READ_BYTES", 64 << 10)  # several reads
    freed: list[bytes] = []
    monkeypatch.setattr(
        packed, "free_object", lambda ticket: (freed.append(ticket), free_object(ticket))
    )
    theirs, ours = pool(torch.randn(SHAPE)), pool(torch.zeros(SHAPE))
    tickets: list[Packed] = []

    async def answer(call):  # type: ignore[no-untyped-def]
        async for item in packed.answer_read(call, lambda name: theirs):
            tickets.append(item)
            yield item

    service = Service()
    service.add_stream(READ, answer)
    server = Server(service)
    address = await server.listen(UnixAddress(str(tmp_path / "s")))
    connection, copies = await connect(str(address)), CopyThread()
    try:
        transport = packed.PackedTransport(copies)
        reader = await transport.attach(connection, "", ours.layout, theirs.layout)
        units = list(range(20))
        num_bytes = await reader.read(units, ours, units, range(2))
        assert num_bytes == 20 * 2 * 2 * 4 * 2 * 64 * 4
        assert reader.transport == "ray_objects"
        assert torch.equal(ours.units[:, :, :20], theirs.units[:, :, :20])
        assert not ours.units[:, :, 20:].any()
        assert len(tickets) > 1
        assert all(item.ticket and not item.data for item in tickets)
    finally:
        connection.close("test over")
        await server.close()
        copies.close()
    assert len(freed) == len(tickets), "every object was freed by its owner"


READER = """
import sys
import ray
from epidote_workers.transfer.ray_objects import get_object
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
print(sum(get_object(bytes.fromhex(sys.argv[2]), 120.0)[:100]))
"""


@pytest.mark.usefixtures("cluster")
def test_another_process_redeems_a_ticket_and_a_freed_object_is_gone() -> None:
    import ray

    def used_bytes() -> float:
        total, free = ray.cluster_resources(), ray.available_resources()
        return float(total["object_store_memory"] - free["object_store_memory"])

    # what the test before has freed may be counted for a while yet: a sixteenth is room for that
    ticket = put_object(bytes([1]) * (16 << 20))
    address = ray.get_runtime_context().gcs_address
    run = [sys.executable, "-c", READER, address, ticket.hex()]
    done = subprocess.run(run, capture_output=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == b"100\n"
    wait_until(lambda: used_bytes() >= 16 << 20)  # nodes tell from time to time
    free_object(ticket)
    wait_until(lambda: used_bytes() <= 1 << 20)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
