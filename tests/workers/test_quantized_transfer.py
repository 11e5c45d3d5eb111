"""This file is about KV that crosses a network as codes of one byte: the loss, and the refusals."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest
from epidote_workers.messages import READ
from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.client import connect
from epidote_workers.rpc.errors import RemoteFailure
from epidote_workers.rpc.server import Server, Service
from epidote_workers.service_settings import ReplicaSettings
from epidote_workers.transfer import packed
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.layout import as_blocks, as_units, kv_layout, media_layout
from epidote_workers.transfer.packed import PackedTransport, answer_read
from epidote_workers.transfer.quantized import (
    codes_for,
    num_bytes_of,
    pack_codes,
    unpack_codes,
    warm_up,
)
from epidote_workers.transfer.transport import LocalPool

SHAPE = (3, 2, 12, 4, 3, 8)  # layers, keys and values, blocks, block size, heads, width
# of a number and its head's largest: half a step of the scale; three bits after the leading one,
# and half a step of the smallest numbers
LOSSES = {"int8": (0.0, 0.5 / 127), "fp8": (2.0**-4, 2.0**-10 / 448)}


def pool_of(tensor: torch.Tensor) -> LocalPool:
    layout = kv_layout(tensor, "m")
    return LocalPool(as_units(tensor, layout), layout)


@pytest.fixture
def copies() -> Iterator[CopyThread]:
    thread = CopyThread()
    yield thread
    thread.close()


@given(
    seed=st.integers(0, 2**31),
    pairs=st.permutations(range(12)).flatmap(
        lambda order: st.integers(1, 12).map(lambda n: (list(order[:n]), sorted(order[-n:])))
    ),
    first=st.integers(0, 2),
    codes=st.sampled_from(["int8", "fp8"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_what_arrives_is_within_the_codes_error_and_nothing_else_changes(
    seed: int, pairs: tuple[list[int], list[int]], first: int, codes: str, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(seed)
    tensor = torch.randn(SHAPE, generator=random) * torch.logspace(-3, 2, 3)[:, None]
    source, target = pool_of(tensor.to(dtype)), pool_of(torch.full(SHAPE, 7.0, dtype=dtype))
    theirs, ours = pairs
    layers = range(first, 3)
    data = pack_codes(source, theirs, layers, codes)
    assert len(data) == num_bytes_of(source.layout, len(theirs), len(layers))
    unpack_codes(data, target, ours, layers, codes)
    sent = as_blocks(source.units, source.layout)[first:, :, theirs].double()
    came = as_blocks(target.units, target.layout)[first:, :, ours].double()
    of_number, of_largest = LOSSES[codes]
    rounding = torch.finfo(dtype).eps  # of the scale's quotient and of the pool's own type
    largest = sent.abs().amax((3, 5), keepdim=True)
    bound = sent.abs() * (of_number + rounding) + largest * (of_largest + rounding)
    assert ((came - sent).abs() <= bound).all()
    rest = [unit for unit in range(12) if unit not in ours]
    assert (target.units[:, :, rest] == 7).all()
    assert (target.units[:first] == 7).all()


def test_a_head_of_zeros_arrives_as_zeros() -> None:
    target = pool_of(torch.ones(SHAPE))
    data = pack_codes(pool_of(torch.zeros(SHAPE)), [0, 1], range(3), "int8")
    unpack_codes(data, target, [3, 4], range(3), "int8")
    assert not target.units[:, :, 3:5].any()


def test_too_few_bytes_are_refused() -> None:
    pool = pool_of(torch.ones(SHAPE))
    data = pack_codes(pool, [0, 1], range(3), "fp8")
    with pytest.raises(ValueError, match=r"wanted 1296 bytes of codes, got 1295"):
        unpack_codes(data[:-1], pool, [0, 1], range(3), "fp8")


@pytest.mark.parametrize("codes", ["int8", "fp8"])
async def test_a_peer_sends_half_the_bytes_on_request(
    tmp_path: Path, copies: CopyThread, codes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pool_of(torch.randn(SHAPE, dtype=torch.bfloat16))
    monkeypatch.setattr(packed, "MAX_READ_BYTES", 3 * 3 * theirs.layout.unit_bytes)
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: theirs))
    server = Server(service)
    connection = await connect(str(await server.listen(UnixAddress(str(tmp_path / "s")))))
    try:
        ours = pool_of(torch.zeros(SHAPE, dtype=torch.bfloat16))
        transport = PackedTransport(copies, codes)
        reader = await transport.attach(connection, "", ours.layout, theirs.layout)
        num_bytes = await reader.read([3, 4, 9, 0], ours, [0, 1, 7, 8], range(1, 3))
        assert num_bytes == num_bytes_of(ours.layout, 4, 2)
        plain = 4 * 2 * ours.layout.unit_bytes
        assert plain / 2 < num_bytes < 0.7 * plain
        sent, came = theirs.units[1:, :, [3, 4, 9, 0]], ours.units[1:, :, [0, 1, 7, 8]]
        assert not came.equal(sent)
        assert torch.allclose(came.float(), sent.float(), atol=0.02, rtol=0.07)
        assert not ours.units[0].any()
    finally:
        connection.close("test over")
        await server.close()


@pytest.mark.parametrize("codes", ["int8", "fp8"])
def test_a_warm_up_leaves_a_fresh_pool_as_it_was(codes: str) -> None:
    pool = pool_of(torch.zeros(SHAPE, dtype=torch.bfloat16))
    warm_up(pool, codes)
    assert not pool.units.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("codes", ["auto", "int8", "fp8"])
async def test_a_small_copy_to_a_gpu_waits_for_no_step(
    tmp_path: Path, copies: CopyThread, codes: str
) -> None:
    shape = (3, 2, 12, 16, 3, 64)
    tensor = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    theirs, ours = pool_of(tensor), pool_of(torch.zeros_like(tensor))
    if codes != "auto":
        warm_up(ours, codes)
    torch.cuda.synchronize()
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: theirs))
    server = Server(service)
    connection = await connect(str(await server.listen(UnixAddress(str(tmp_path / "s")))))
    try:
        transport = PackedTransport(copies, codes)
        reader = await transport.attach(connection, "", ours.layout, theirs.layout)
        await reader.read([3], ours, [0], range(3))  # streams are made, memory is had
        end = torch.cuda.Event()
        torch.cuda._sleep(6_000_000_000)  # cycles: steps that are enqueued, some seconds
        end.record()
        await reader.read([4], ours, [1], range(3))
        assert not end.query()
        got = ours.units[:, :, 1].cpu()  # behind the sleep
        want = theirs.units[:, :, 4].cpu()
        assert torch.allclose(got.float(), want.float(), atol=0.05, rtol=0.07)
    finally:
        connection.close("test over")
        await server.close()


async def test_embeddings_travel_as_they_are(tmp_path: Path, copies: CopyThread) -> None:
    tensor = torch.randn(9, 16)
    layout = media_layout(tensor, "m")
    theirs = LocalPool(as_units(tensor, layout), layout)
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: theirs))
    server = Server(service)
    connection = await connect(str(await server.listen(UnixAddress(str(tmp_path / "s")))))
    try:
        ours = LocalPool(torch.zeros_like(theirs.units), layout)
        reader = await PackedTransport(copies, "int8").attach(connection, "", layout, layout)
        await reader.read([8, 2], ours, [0, 1], range(1))
        assert ours.units[:, :, [0, 1]].equal(theirs.units[:, :, [8, 2]])
    finally:
        connection.close("test over")
        await server.close()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
async def test_a_pool_of_codes_is_not_coded_again(
    tmp_path: Path, copies: CopyThread, dtype: torch.dtype
) -> None:
    theirs = pool_of(torch.zeros(SHAPE).to(dtype))
    with pytest.raises(InvalidRequest, match="whose codes travel as they are"):
        codes_for("int8", theirs.layout)
    assert codes_for("auto", theirs.layout) == ""
    with pytest.raises(ValueError, match="pool"):
        pack_codes(theirs, [0], range(1), "int8")
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: theirs))
    server = Server(service)
    connection = await connect(str(await server.listen(UnixAddress(str(tmp_path / "s")))))
    try:
        reader = packed.PackedPool(connection, theirs.layout, copies, "int8")
        with pytest.raises(RemoteFailure):  # a peer that asks all the same
            await reader.read([0], theirs, [1], range(1))
    finally:
        connection.close("test over")
        await server.close()


def test_settings_that_contradict_each_other_are_refused_at_the_start() -> None:
    with pytest.raises(InvalidRequest, match="--kv-transfer-dtype int8 with --kv-cache-dtype fp8"):
        ReplicaSettings(model="m", kv_cache_dtype="fp8", kv_transfer_dtype="int8")
    with pytest.raises(InvalidRequest, match="must be one of auto, int8, fp8, got 'int4'"):
        codes_for("int4", pool_of(torch.zeros(SHAPE)).layout)
