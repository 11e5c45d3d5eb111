"""Milliseconds to move 50 MiB of KV blocks from another process's pool into ours.

python workers/bench/transfer.py
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.descriptor_socket import fetch_descriptor
from epidote_workers.transfer.layout import as_units, kv_layout
from epidote_workers.transfer.shared_memory import MappedPool
from epidote_workers.transfer.shared_pool import map_read_only
from epidote_workers.transfer.transport import LocalPool

SHAPE = (8, 2, 400, 16, 4, 64)  # 200 blocks are 50 MiB of float32
OWNER = """
import sys, torch
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator
from epidote_workers.transfer.descriptor_socket import DescriptorServer
allocator = SharedMemoryAllocator()
allocator.allocate("kv", eval(sys.argv[2]), torch.float32).normal_()
server = DescriptorServer(sys.argv[1], allocator)
print("ready", flush=True)
sys.stdin.read()
"""


async def measure(path: str, repeats: int) -> dict[str, float]:
    target = torch.zeros(SHAPE)
    layout = kv_layout(target, "m")
    into = LocalPool(as_units(target, layout), layout)
    start_s = time.perf_counter()
    descriptor = fetch_descriptor(path, "kv")
    copies = CopyThread()
    pool = MappedPool(map_read_only(descriptor, layout), layout, copies)
    os.close(descriptor)
    attach_s = time.perf_counter() - start_s
    report = {"attach_ms": attach_s * 1e3}
    scattered = torch.randperm(400, generator=torch.Generator().manual_seed(1))[:200].tolist()
    for name, blocks, layers in (
        ("together", list(range(200)), [range(8)]),
        ("together_layer_by_layer", list(range(200)), [range(n, n + 1) for n in range(8)]),
        ("scattered", scattered, [range(8)]),
    ):
        spent = []
        for _ in range(repeats):
            start_s = time.perf_counter()
            for some in layers:
                await pool.read(blocks, into, list(range(200)), some)
            spent.append(time.perf_counter() - start_s)
        report[f"{name}_first_ms"] = spent[0] * 1e3  # pages are faulted in
        report[f"{name}_median_ms"] = statistics.median(spent) * 1e3
    copies.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/fds"
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, path, repr(SHAPE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert owner.stdout is not None
        owner.stdout.readline()
        try:
            report = asyncio.run(measure(path, options.repeats))
        finally:
            owner.kill()
            owner.wait()
    print(json.dumps({k: round(v, 2) for k, v in report.items()}, indent=2))


if __name__ == "__main__":
    main()
