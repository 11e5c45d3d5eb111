"""GB/s of every way to read a peer's KV pool, beside what memory and loopback do at best here.

    python kernels/bench/bench_transfers.py                 # CUDA IPC, NIXL, … where there is a GPU
    python kernels/bench/bench_transfers.py --device cpu    # shared memory, NIXL, Ray, connection
    UCX_TLS=tcp python kernels/bench/bench_transfers.py --device cpu    # NIXL as between hosts
    python kernels/bench/bench_transfers.py --device cpu --toy

Another process owns the pool; this one reads a prompt of 4,096 tokens in the layout of Qwen3-8B, in
runs of eight blocks: one layer, all layers at once, and layer by layer as behind compute. What
arrives is compared first. Between two hosts NIXL's limit is the link's: this measures one host.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from device_limits import Limits, conditions, progress, seconds
from recording import parser, write
from transfer_owner import OwnerSettings, filled

from epidote_workers.messages import POOLS, Nothing, Pools
from epidote_workers.rpc.client import Connection, connect
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import CudaIpcTransport
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import as_units, kv_layout
from epidote_workers.transfer.nixl_agent import open_agent
from epidote_workers.transfer.nixl_transport import NixlTransport
from epidote_workers.transfer.packed import PackedTransport
from epidote_workers.transfer.shared_memory import SharedMemoryTransport
from epidote_workers.transfer.staging import Staging
from epidote_workers.transfer.transport import LocalPool, PeerPool, Transport

RUN_BLOCKS = 8  # that lie together, as blocks allocated together mostly do
PART_S = 60.0  # of one transport; one that hangs must not end the bench


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A pool and how much of it is a prompt. On a CPU fewer layers: the rates are the same."""

    shape: tuple[int, ...]
    num_blocks: int
    repeats: int


def sizes_of(device: str, *, toy: bool) -> Sizes:
    if toy:
        return Sizes(shape=(2, 2, 24, 16, 2, 16), num_blocks=16, repeats=2)
    layers, repeats = (36, 7) if device.startswith("cuda") else (4, 3)
    return Sizes(shape=(layers, 2, 320, 16, 8, 128), num_blocks=256, repeats=repeats)


def memory_bytes_per_s(pool: LocalPool, sizes: Sizes, device: str, *, toy: bool) -> float:
    """Bytes moved by one contiguous copy of the prompt, counted once."""
    source = torch.empty_like(pool.units[:, :, : sizes.num_blocks]).contiguous()
    target = torch.zeros_like(source)
    num_bytes = source.numel() * source.element_size()
    return num_bytes / seconds(lambda: target.copy_(source), device, toy=toy)


def loopback_bytes_per_s(num_bytes: int) -> float:
    """Bytes through one TCP connection of this host, sent by a thread, into one buffer."""
    listener = socket.create_server(("127.0.0.1", 0))
    data, into = bytearray(min(num_bytes, 64 << 20)), bytearray(1 << 20)
    times = []
    for _ in range(3):
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
        thread = threading.Thread(target=sender.sendall, args=(data,))
        start_s = time.perf_counter()
        thread.start()
        left = len(data)
        while left:
            left -= receiver.recv_into(into, min(left, len(into)))
        times.append(time.perf_counter() - start_s)
        thread.join()
        sender.close()
        receiver.close()
    listener.close()
    return len(data) / min(times)


class Bench:
    """One reader against one owner."""

    def __init__(self, device: str, dtype: torch.dtype, *, toy: bool) -> None:
        self.device, self.toy = device, toy
        self.sizes = sizes_of(device, toy=toy)
        tensor = torch.zeros(self.sizes.shape, dtype=dtype, device=device)
        layout = kv_layout(tensor, "bench")
        self.into = LocalPool(as_units(tensor, layout), layout)
        self._wanted = as_units(filled(torch.empty(self.sizes.shape, dtype=dtype)), layout)
        runs = [range(at, at + RUN_BLOCKS) for at in range(0, layout.num_units, RUN_BLOCKS)]
        Random(1).shuffle(runs)
        self.theirs = [unit for run in runs for unit in run][: self.sizes.num_blocks]
        self.ours = list(range(self.sizes.num_blocks))
        self.limits = {
            "memory": memory_bytes_per_s(self.into, self.sizes, device, toy=toy),
            "loopback": loopback_bytes_per_s(layout.num_bytes),
        }

    async def measure(
        self, name: str, pool: PeerPool, limit: str, *, exact: bool = True
    ) -> list[dict[str, Any]]:
        """One line per amount. A transport whose bytes are wrong has no time."""
        layout, lines = self.into.layout, []
        layers = [range(n, n + 1) for n in range(layout.num_layers)]
        for amount, some in (
            ("one layer", layers[:1]),
            ("prompt at once", [range(layout.num_layers)]),
            ("prompt layer by layer", layers),
        ):
            self.into.units.zero_()
            times, num_bytes = [], 0
            for _ in range(self.sizes.repeats + 1):  # the first faults pages in, opens connections
                start_s = time.perf_counter()
                num_bytes = 0
                for part in some:
                    num_bytes += await pool.read(self.theirs, self.into, self.ours, part)
                times.append(time.perf_counter() - start_s)
            line: dict[str, Any] = {"transport": name, "amount": amount, "bytes": num_bytes}
            # in a thread: a loop that stands still looks like a silent peer
            if not await asyncio.to_thread(self._is_right, some, exact):
                line["wrong"] = "other bytes than the owner's"
            else:
                time_s = statistics.median(times[1:])
                held = len(self.ours) * layout.unit_bytes * sum(len(part) for part in some)
                line |= {
                    "time_s": time_s,
                    "gb_per_s": held / time_s / 1e9,  # of KV, however many bytes travelled
                    "limit": limit,
                    "percent_of_limit": 100 * held / time_s / self.limits[limit],
                }
            lines.append(line)
            progress(as_text(line))
        return lines

    def _is_right(self, some: list[range], exact: bool) -> bool:
        for layer in range(some[0].start, some[-1].stop):
            came = self.into.units[layer, :, : len(self.ours)].cpu()
            sent = self._wanted[layer].index_select(1, torch.tensor(self.theirs))
            if exact and not came.equal(sent):
                return False
            if not torch.allclose(came.float(), sent.float(), rtol=0.07, atol=0.0):
                return False
        return True


def as_text(line: dict[str, Any]) -> str:
    what = f"{line['transport']:16s} {line['amount']:22s} {line['bytes'] / 2**20:8.1f} MiB"
    if "wrong" in line:
        return f"{what} WRONG: {line['wrong']}"
    return (
        f"{what} {line['time_s'] * 1e3:9.2f} ms {line['gb_per_s']:8.2f} GB/s "
        f"{line['percent_of_limit']:6.1f} % of {line['limit']}"
    )


async def run(bench: Bench, connection: Connection, start_ray: Callable[[], None]) -> list[Any]:
    """Every transport that works here; one that does not says why."""
    pools: Pools = await connection.call(POOLS, Nothing(), timeout_s=60.0)
    layout, copies = pools.layouts[0], CopyThread()
    into, on_gpu = bench.into, bench.device.startswith("cuda")
    agent = await asyncio.to_thread(open_agent, "reader")
    slots = Staging(agent, into.units.device) if agent is not None else None
    nixl = (
        NixlTransport(agent, slots, copies, PackedTransport(copies))
        if agent is not None and slots is not None
        else None
    )
    same_host: tuple[str, Transport, str]
    if on_gpu:
        same_host = ("cuda_ipc", CudaIpcTransport(copies), dict(pools.cuda_handles)["kv"])
    else:
        same_host = ("shared_memory", SharedMemoryTransport(copies), pools.descriptor_path)
    # inside one host UCX takes whatever is best there; UCX_TLS=tcp makes it the network's way
    handle, is_tcp = dict(pools.nixl_handles).get("kv", ""), os.environ.get("UCX_TLS") == "tcp"
    ways: list[tuple[str, Transport | None, str, str, bool]] = [
        (*same_host, "memory", True),
        ("nixl", nixl, handle, "loopback" if is_tcp else "memory", True),
        ("connection", PackedTransport(copies), "", "loopback", True),
        ("connection int8", PackedTransport(copies, "int8"), "", "loopback", False),
        ("connection fp8", PackedTransport(copies, "fp8"), "", "loopback", False),
        ("ray", PackedTransport(copies), "", "memory", True),
    ]  # fmt: skip
    lines: list[dict[str, Any]] = []
    for name, transport, where, limit, exact in ways:
        try:
            if name == "ray":
                await asyncio.to_thread(start_ray)
            if transport is None:
                raise NoDescriptor("nixl is not installed")
            async with asyncio.timeout(PART_S):
                pool = await transport.attach(connection, where, into.layout, layout)
                lines += await bench.measure(name, pool, limit, exact=exact)
            pool.close()
        except Exception as failed:  # what does not work here must not end the bench
            lines.append({"transport": name, "refused": f"{type(failed).__name__}: {failed}"[:200]})
            progress(json.dumps(lines[-1]))
    return lines


def main(given: list[str]) -> int:
    """0; 1 if a transport brought other bytes."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--no-ray", action="store_true", help="leave Ray's object store out")
    chosen = arguments.parse_args(given)
    torch.set_num_threads(1)
    # the cluster of the last part is on loopback, ours, and gone when this process is
    os.environ["RAY_AUTH_MODE"] = "disabled"
    dtype = torch.bfloat16
    bench = Bench(chosen.device, dtype, toy=chosen.toy)
    limits = Limits(2 * bench.limits["memory"], float("nan"))  # a copy reads and writes
    result = conditions(chosen.device, dtype, limits, toy=chosen.toy)
    result["limits"] = {f"{name}_bytes_per_s": rate for name, rate in bench.limits.items()}
    progress(json.dumps(result, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        settings = OwnerSettings(
            device=chosen.device, dtype="bfloat16", shape=bench.sizes.shape, folder=folder
        )  # fmt: skip
        script = Path(__file__).parent / "transfer_owner.py"
        owner = subprocess.Popen(
            [sys.executable, str(script), json.dumps(asdict(settings))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            result["transfers"] = asyncio.run(read_all(bench, owner, with_ray=not chosen.no_ray))
        finally:
            owner.kill()
            owner.wait()
    print(write(result, chosen.out, "-transfers"))
    return int(any("wrong" in line for line in result["transfers"]))


async def read_all(
    bench: Bench, owner: "subprocess.Popen[str]", *, with_ray: bool
) -> list[dict[str, Any]]:
    connection = await connect(told(owner)["address"])

    def start_ray() -> None:
        if not with_ray:
            raise NoDescriptor("--no-ray")
        import ray

        ray.init(  # a cluster of our own, whatever else runs here
            address="local", num_cpus=1, include_dashboard=False, object_store_memory=512 << 20,
            log_to_driver=False, configure_logging=False, _node_ip_address="127.0.0.1",
        )  # fmt: skip
        assert owner.stdin is not None
        owner.stdin.write(ray.get_runtime_context().gcs_address + "\n")
        owner.stdin.flush()
        told(owner)

    try:
        return await run(bench, connection, start_ray)
    finally:
        connection.close("measured")


def told(owner: "subprocess.Popen[str]") -> dict[str, Any]:
    """The owner's next word; libraries print, too."""
    assert owner.stdout is not None
    for line in iter(owner.stdout.readline, ""):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise RuntimeError("the owner ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
