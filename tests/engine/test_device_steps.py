"""What an engine does for a GPU, as far as a CPU can tell: warm-up, memory, layers' events."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.encode_queue import EncodeQueue
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import KvReady
from epidote_engine.in_process import serve
from epidote_engine.layer_events import LayerEvents
from epidote_engine.memory_plan import reserved_bytes
from epidote_engine.model_parts import ModelParts
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights
from epidote_engine.pools import gpu_kv_bytes
from epidote_engine.runner import Runner
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_engine.weights import language_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("device") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_VL, seed=4)
    return str(path)


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_warm_engine_has_written_nothing_and_says_the_same(model: str, overlaps: bool) -> None:
    sizes = {"dtype": "float32", "block_size": 4, "num_kv_blocks": 50, "max_num_seqs": 9}
    config = EngineConfig(
        model=model, static_shapes=True, warm_up=True, overlap_steps=overlaps, **sizes
    )
    engine = Engine(config)
    assert not engine.kv_pool.tensor.any()
    assert engine.is_drained()
    requests = [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=tuple(range(n, 2 * n + 1)),
            sampling=SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True),
        )
        for n in range(11)
    ]
    want = serve(Engine(EngineConfig(model=model, **sizes)), requests)
    got = serve(engine, requests)
    assert {k: v.token_ids for k, v in got.items()} == {k: v.token_ids for k, v in want.items()}


def test_what_is_spoken_for_covers_the_weights_and_grows_with_the_step(model: str) -> None:
    spec = load_model_spec(model)
    files = sum(p.stat().st_size for p in Path(model).glob("*.safetensors"))

    def reserved(**given: int) -> int:
        config = EngineConfig(model=model, num_media_rows=0, **given)
        return reserved_bytes(spec, config, spec.decoder, torch.float32)

    assert reserved() > files
    assert reserved(max_batched_tokens=4096) > reserved(max_batched_tokens=2048)
    assert reserved(max_num_seqs=128) > reserved(max_num_seqs=64)


GIB = 1 << 30


def test_engines_on_one_gpu_get_their_parts_whoever_starts_first() -> None:
    total, reserved = 140 * GIB, 17 * GIB
    configs = [EngineConfig(model="none", device_share=0.25) for _ in range(4)]
    free = total
    parts = []
    for config in configs:  # one after the other: the last sees what the others have left
        parts.append(gpu_kv_bytes(config, reserved, total=total, free=free))
        free -= parts[-1] + reserved
    assert len(set(parts)) == 1
    assert parts[0] == pytest.approx(0.25 * 0.85 * total - reserved, abs=2)
    assert gpu_kv_bytes(configs[0], 40 * GIB, total=total, free=total) == 0


def test_an_engine_whose_memory_others_hold_says_how_much_is_missing() -> None:
    config = EngineConfig(model="none", memory_utilization=0.9)
    with pytest.raises(InvalidRequest, match=r"0\.9 of 80\.0 GiB is 72\.0 GiB, but only 60\.0 GiB"):
        gpu_kv_bytes(config, 0, total=80 * GIB, free=60 * GIB)


def test_a_pool_without_room_for_a_block_says_what_takes_it(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epidote_engine.pools._kv_bytes", lambda *_: 0)
    with pytest.raises(InvalidRequest, match=r"weights and steps take 1\.\d GiB of 85% of"):
        Engine(EngineConfig(model=model, dtype="float32"))


def test_weights_read_one_at_a_time_are_the_same(model: str) -> None:
    spec = load_model_spec(model)
    lazily = ShardedWeights(spec, Shards.alone(), device="cpu")
    whole = language_weights(spec, dtype=torch.float32, device="cpu")
    assert set(lazily) == set(whole)
    assert all(lazily[name].equal(tensor) for name, tensor in whole.items())


def test_steps_and_role_switches_make_the_engines_device_current(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[torch.device] = []
    was_current: list[tuple[str, bool]] = []

    @contextlib.contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def spied(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def spy(*arguments: Any, **named: Any) -> Any:
            was_current.append((name, bool(current)))
            return real(*arguments, **named)

        monkeypatch.setattr(kind, name, spy)

    monkeypatch.setattr("epidote_engine.engine.made_current", noted)
    spied(ModelParts, "take_role")
    spied(Runner, "step")
    spied(EncodeQueue, "step")
    config = EngineConfig(model=model, dtype="float32", num_kv_blocks=50, num_media_rows=64)
    engine = Engine(config)
    sampling = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    request = GenerateRequest(request_id="a", prompt_token_ids=(1, 2, 3), sampling=sampling)
    serve(engine, [request])
    engine.set_role(Role.DECODE)
    assert {name for name, _ in was_current} >= {"take_role", "step"}
    assert all(inside for _, inside in was_current)


class Gate:
    """An event of a device that comes when the test says so."""

    def __init__(self, *, fails: bool = False) -> None:
        self._open, self._fails = threading.Event(), fails

    def come(self) -> None:
        self._open.set()

    def synchronize(self) -> None:
        self._open.wait(60)
        if self._fails:
            raise RuntimeError("an illegal memory access was encountered")


def span(layer: int) -> KvReady:
    return KvReady(
        request_id="a", block_ids=(1,), start_token=0, end_token=4,
        first_layer=layer, end_layer=layer + 1,
    )  # fmt: skip


def test_a_layer_is_told_of_when_the_device_has_written_it() -> None:
    gates = [Gate(), Gate(fails=True), Gate()]
    recorded = iter(gates)
    told: list[int] = []
    two = threading.Event()

    def tell(spans: list[KvReady]) -> None:
        told.extend(s.first_layer for s in spans)
        if len(told) == 2:
            two.set()

    announce = LayerEvents(lambda: next(recorded)).behind(tell)
    for layer in range(3):
        announce([span(layer)])  # returns at once
    gates[2].come()
    assert told == []  # the first has not come: nobody overtakes it
    gates[0].come()
    gates[1].come()
    assert two.wait(60)
    assert told == [0, 2]  # a layer that failed is not told of
