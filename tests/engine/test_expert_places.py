"""Experts that move: weights as if loaded there, in the memory where a captured graph looks."""

import gc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement, default_placement
from epidote_engine.config import ModelSpec, load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.expert_spec import ExpertSpec
from epidote_engine.kernel_shapes import kernel_shapes
from epidote_engine.memory_plan import reserved_bytes
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.parallel.decoder import ParallelDecoderLM
from epidote_engine.parallel.expert_places import ExpertPlaces
from epidote_engine.parallel.incoming_experts import FAILED
from epidote_engine.parallel.placed_experts import PlacedExperts
from epidote_engine.parallel.shards import Shards
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

SEED = 15  # seven experts in each of three layers
REDUNDANT = 1
WAIT_S = 60.0


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("places") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_MOE, SEED, max_shard_size="40KB")
    return load_model_spec(str(path))


class Still(Shards):
    """A rank that asks nobody: rows that are cut have the largest number of its own part."""

    def largest(self, part: torch.Tensor) -> torch.Tensor:
        return part


def loaded(
    spec: ModelSpec,
    rank: int,
    placement: Placement | None = None,
    dtype: str = "float32",
    quantization: str | None = None,
) -> tuple[ParallelDecoderLM, ExpertPlaces]:
    """One of two ranks, which never computes: nothing is summed."""
    shards = Still.place(rank, 2)
    places = ExpertPlaces(spec, shards, REDUNDANT)
    if placement is not None:
        places.place(placement)
    number = getattr(torch, dtype)
    return ParallelDecoderLM(spec, shards, number, "cpu", places, quantization), places


def held(model: ParallelDecoderLM) -> list[torch.Tensor]:
    """All that a move changes."""
    experts = [layer.mlp for layer in model.layers if isinstance(layer.mlp, PlacedExperts)]
    return [
        tensor
        for one in experts
        for tensor in (one.gate_up, one.down, one._table, *(one.scales or ()))
    ]


def drawn(seed: int) -> Placement:
    rng, layers = Random(seed), []
    for _ in range(3):
        slots = [*range(7), rng.randrange(7)]
        rng.shuffle(slots)
        layers.append(tuple(slots))
    return tuple(layers)


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", None), ("bfloat16", None), ("float16", "int8"), ("float16", "fp8")],
)
def test_after_a_move_every_rank_holds_what_it_would_have_loaded(
    spec: ModelSpec, dtype: str, quantization: str | None
) -> None:
    ranks = [loaded(spec, rank, None, dtype, quantization) for rank in range(2)]
    addresses = [[tensor.data_ptr() for tensor in held(model)] for model, _ in ranks]
    for seed in range(3):
        target = drawn(seed)
        for _, places in ranks:
            places.place(target)
        while ranks[0][1].is_moving:
            ready = min(places.num_ready(WAIT_S) for _, places in ranks)
            for _, places in ranks:
                places.advance(ready)
            assert ranks[0][1].placement == ranks[1][1].placement
        for rank, (model, places) in enumerate(ranks):
            assert places.placement == target
            fresh = held(loaded(spec, rank, target, dtype, quantization)[0])
            assert len(fresh) == (9 if quantization is None else 15)
            for found, wanted in zip(held(model), fresh, strict=True):
                assert found.dtype is wanted.dtype
                assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8))
    assert [[t.data_ptr() for t in held(model)] for model, _ in ranks] == addresses


def test_experts_are_read_out_of_a_packed_tensor(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3_VL_MOE, 2)
    packed = load_model_spec(str(tmp_path / "tiny"))
    experts: ExpertSpec = packed.text["experts"]
    redundant = experts.num_experts % 2
    shards = Shards.place(1, 2)
    turned = default_placement(
        len(experts.layers), experts.num_experts, experts.num_experts + redundant
    )
    turned = tuple(layer[::-1] for layer in turned)
    moved, fresh = (ExpertPlaces(packed, shards, redundant) for _ in range(2))
    fresh.place(turned)
    models = [
        ParallelDecoderLM(packed, shards, torch.float32, "cpu", places) for places in (moved, fresh)
    ]
    moved.place(turned)
    while moved.is_moving:
        assert moved.num_ready(WAIT_S) >= 1
        moved.advance(1)
    assert all(map(torch.equal, held(models[0]), held(models[1])))


def test_no_rank_goes_ahead_of_one_that_still_reads(spec: ModelSpec) -> None:
    model, places = loaded(spec, 0)
    before, start = [tensor.clone() for tensor in held(model)], places.placement
    places.place(drawn(1))
    assert places.num_ready(WAIT_S) >= 1
    places.advance(0)
    assert places.is_moving
    assert places.placement == start
    assert all(map(torch.equal, held(model), before))
    places.advance(1)
    assert places.placement != start
    places.detach()


def test_reading_ahead_is_bounded(spec: ModelSpec) -> None:
    _, places = loaded(spec, 0)
    places.place(drawn(2))
    incoming = places._incoming
    assert incoming is not None
    staged = 0
    while places.is_moving:
        assert places.num_ready(WAIT_S) > 0
        buffers = sum(len(step.buffers) for step in list(incoming._staged)) + len(incoming._free)
        assert buffers <= 8
        places.advance(1)
        staged += 1
    assert staged >= 3


def test_a_second_target_replaces_the_first_where_the_move_is(spec: ModelSpec) -> None:
    _, places = loaded(spec, 1)
    places.place(drawn(1))
    assert places.num_ready(WAIT_S)
    places.advance(1)
    between = places.placement
    places.place(between)  # stay
    assert not places.is_moving
    places.place(drawn(3))
    while places.is_moving:
        assert places.num_ready(WAIT_S) >= 1
        places.advance(1)
    assert places.placement == drawn(3)


def test_the_same_target_told_again_disturbs_nothing(spec: ModelSpec) -> None:
    _, places = loaded(spec, 0)
    places.place(drawn(1))
    incoming = places._incoming
    places.place(drawn(1))
    assert places._incoming is incoming
    places.detach()


def test_buffers_are_lent_again_when_the_device_has_copied_them(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Event:
        """One of CUDA's: never done by itself."""

        is_done = False

        def record(self) -> None: ...

        def query(self) -> bool:
            return Event.is_done

    _, places = loaded(spec, 0)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    places.place(drawn(2))
    incoming = places._incoming
    assert incoming is not None
    lent = 0
    for _ in range(2):
        assert places.num_ready(WAIT_S) >= 1
        lent += len(incoming._staged[0].buffers)
        places.advance(1)
    assert lent

    def idle() -> int:
        incoming._take_back()
        staged = sum(len(step.buffers) for step in list(incoming._staged))
        return len(incoming._free) + staged

    assert sum(len(buffers) for _, buffers in incoming._copied) == lent
    assert idle() <= 8 - lent
    Event.is_done = True
    incoming._take_back()
    assert not incoming._copied
    places.detach()


def test_an_engine_that_goes_in_the_middle_of_a_move_leaves_no_thread(spec: ModelSpec) -> None:
    model, places = loaded(spec, 0)
    places.place(drawn(1))
    incoming = places._incoming
    assert incoming is not None
    assert places.num_ready(WAIT_S)
    del model, places
    gc.collect()
    incoming.thread.join(WAIT_S)
    assert not incoming.thread.is_alive()


def test_a_move_whose_weights_cannot_be_read_ends_where_it_is(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, places = loaded(spec, 0)
    start = places.placement

    def fails(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("epidote_engine.parallel.weights.safe_open", fails)
    places.place(drawn(1))
    ready = places.num_ready(WAIT_S)
    assert ready == FAILED
    places.advance(min(ready, 3))
    assert not places.is_moving
    assert places.placement == start
    assert "experts stay where they are" in caplog.text


def test_where_no_model_is_loaded_a_placement_is_taken_at_once(spec: ModelSpec) -> None:
    _, places = loaded(spec, 0)
    places.place(drawn(1))
    places.detach()
    assert places.placement == drawn(1)
    places.place(drawn(2))
    assert places.placement == drawn(2)
    assert not places.is_moving


def test_kernels_and_memory_are_planned_for_this_rank_s_slots(spec: ModelSpec) -> None:
    config = Shards.place(0, 2).own(spec.decoder, REDUNDANT)
    kv = torch.zeros(3, 2, 1, 4, 1, 16)
    shapes = kernel_shapes(config, kv, torch.float32)
    assert (shapes.num_experts, shapes.num_slots) == (7, 4)
    assert shapes.expert_inner == spec.text["experts"].intermediate  # whole ones
    engine = EngineConfig(model=str(spec.path), num_kv_blocks=9)
    without = Shards.place(0, 2).own(spec.decoder, 1)
    more = Shards.place(0, 2).own(spec.decoder, 3)
    sizes = [reserved_bytes(spec, engine, c, torch.float32, 2) for c in (without, more)]
    expert = 3 * spec.decoder.hidden * config.experts.intermediate if config.experts else 0
    assert sizes[1] - sizes[0] == 3 * expert * 4  # a redundant slot more on each rank, three layers


def decoder(**changed: Any) -> DecoderConfig:
    experts = ExpertSpec(num_experts=4, per_token=2, intermediate=9, renormalises=True, layers=(0,))
    sizes: dict[str, Any] = {
        "num_layers": 1, "hidden": 8, "num_heads": 4, "num_kv_heads": 2, "head_dim": 2,
        "intermediate": 8, "vocab": 9, "experts": experts,
    }  # fmt: skip
    return DecoderConfig(**{**sizes, **changed})


@pytest.mark.parametrize(
    ("config", "ranks", "redundant", "field", "words"),
    [
        (decoder(), 2, 1, "num_redundant_experts", "4 experts and 1 redundant ones can't be"),
        (decoder(), 2, 6, "num_redundant_experts", "6 is more than 4"),
        (decoder(), 1, 0, "expert_parallel", "needs tensor parallelism over at least 2 ranks"),
        (decoder(experts=None), 2, 0, "expert_parallel", "the model has no experts"),
        (decoder(num_heads=3), 2, 0, "num_attention_heads", "can't be cut"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    config: DecoderConfig, ranks: int, redundant: int, field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as found:
        Shards.place(0, ranks).own(config, redundant)
    assert found.value.field == field


def test_channels_that_cannot_be_cut_do_not_matter_to_whole_experts() -> None:
    config = Shards.place(1, 2).own(decoder(), 2)
    assert config.experts is not None
    assert config.experts.intermediate == 9
    assert config.expert_slots is not None
    assert list(config.expert_slots.own) == [3, 4, 5]


ENGINES: list[tuple[dict[str, Any], Shards | None, str]] = [
    ({}, None, "expert_parallel: needs tensor parallelism"),
    ({}, Shards.place(0, 2), "num_redundant_experts: 7 experts and 0 redundant ones"),
]


@pytest.mark.parametrize(("more", "shards", "words"), ENGINES, ids=[w[:30] for *_, w in ENGINES])
def test_an_engine_that_cannot_be_so_is_refused(
    spec: ModelSpec, more: dict[str, Any], shards: Shards | None, words: str
) -> None:
    config = EngineConfig(
        model=str(spec.path), dtype="float32", num_kv_blocks=9, expert_parallel=True, **more
    )
    with pytest.raises(InvalidRequest, match=words):
        Engine(config, shards=shards)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: EngineConfig(model="m", num_redundant_experts=2), "num_redundant_experts"),
        (
            lambda: EngineConfig(model="m", expert_parallel=True, num_redundant_experts=-1),
            "num_redundant_experts",
        ),
    ],
)
def test_redundant_experts_need_expert_parallelism(
    make: Callable[[], EngineConfig], field: str
) -> None:
    with pytest.raises(InvalidRequest) as found:
        make()
    assert found.value.field == field


def test_an_engine_without_whole_experts_has_no_placement(spec: ModelSpec) -> None:
    engine = Engine(EngineConfig(model=str(spec.path), num_kv_blocks=9))
    assert engine.expert_placement() is None
    with pytest.raises(InvalidRequest, match="placement: this engine holds no whole experts"):
        engine.place_experts(drawn(1))
    assert not engine.has_work()
