"""A device that is behind its host is waited for before anything is overwritten, shared or given
away. On a CPU nothing is behind, so its events are counted: which were there when it mattered."""

import math
import threading
from typing import Any

import pytest

from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import KvReady, KvReserved
from epidote_engine.sampler import Sampled
from epidote_engine.sequence import Mode
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

BLOCK = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("waits") / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=5)
    return str(path)


class Device:
    """Counts its events, and those that the engine's own thread has waited for."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_waited = 0
        self._thread = threading.get_ident()

    def record(self) -> "Point":
        self.num_recorded += 1
        return Point(self, self.num_recorded)

    def came_to(self, number: int) -> None:
        if threading.get_ident() == self._thread:
            self.num_waited = max(self.num_waited, number)


class Point:
    def __init__(self, device: Device, number: int) -> None:
        self._device, self.number = device, number

    def synchronize(self) -> None:
        self._device.came_to(self.number)


class Watched:
    """An engine on such a device: `ends[n]` is the event behind step n, `writers` the last step
    that wrote to each block."""

    def __init__(self, model: str, *, overlaps: bool, **given: Any) -> None:
        self.device = Device()
        self.ends: list[float] = []
        self.waited_at_launch: list[int] = []
        self.writers: dict[int, int] = {}
        config = EngineConfig(
            model=model, dtype="float32", overlap_steps=overlaps, static_shapes=True,
            max_batched_tokens=64, block_size=BLOCK, **given,
        )  # fmt: skip
        self.engine = Engine(config, record=self.device.record)
        self._launch = self._runner.step
        self._runner.step = self._step

    @property
    def _runner(self) -> Any:
        return self.engine._parts.runner

    def _step(self, plan: Any, **named: Any) -> Any:
        self.waited_at_launch.append(self.device.num_waited)
        for seq, start, end in plan.prefills:
            for block in seq.blocks[start // BLOCK : -(-end // BLOCK)]:
                self.writers[block] = len(self.ends)
        launched = self._launch(plan, **named)
        self.ends.append(self._end(launched))
        return launched

    def _end(self, launched: Any) -> float:
        """The event that this step ends with; never, if nobody could wait for it."""
        if isinstance(launched, Sampled) and len(launched.rows):
            self.device.came_to(self.device.num_recorded)  # it brought tokens: it is over
            return self.device.num_waited
        done = getattr(launched, "_done", None)
        return math.inf if done is None else done.number

    def unwritten(self, blocks: tuple[int, ...]) -> list[int]:
        """Blocks that a step may still write to, since nobody waited for it."""
        return [
            block
            for block in blocks
            if block in self.writers and self.ends[self.writers[block]] > self.device.num_waited
        ]

    def add(self, name: str, prompt: tuple[int, ...], mode: Mode = Mode.GENERATE) -> None:
        sampling = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
        request = GenerateRequest(request_id=name, prompt_token_ids=prompt, sampling=sampling)
        self.engine.add(request, mode=mode)


PROMPT = tuple((7 * i) % 250 for i in range(200))


@pytest.mark.parametrize("overlaps", [False, True])
def test_inputs_are_overwritten_when_the_step_that_reads_them_is_over(
    model: str, overlaps: bool
) -> None:
    watched = Watched(model, overlaps=overlaps, num_kv_blocks=100, chunk_tokens=16)
    watched.add("a", PROMPT)
    while watched.engine.has_work():
        watched.engine.step()
    behind = 2 if overlaps else 1  # overlapped steps write to two sets of inputs, in turns
    assert len(watched.ends) > 12
    for step in range(behind, len(watched.ends)):
        assert watched.waited_at_launch[step] >= watched.ends[step - behind], step
    assert watched.device.num_waited >= watched.ends[-1]


def test_a_step_is_over_when_its_tokens_lie_where_the_next_one_looks(model: str) -> None:
    watched = Watched(model, overlaps=True, num_kv_blocks=100)
    carried = []
    carry = watched._runner._buffers.carry

    def noted(*arguments: Any) -> None:
        carry(*arguments)
        carried.append(watched.device.num_recorded)

    watched._runner._buffers.carry = noted
    watched.add("a", PROMPT[:20])
    while watched.engine.has_work():
        watched.engine.step()
    assert carried == [end - 1 for end in watched.ends]  # the event comes behind


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_peer_hears_of_cached_blocks_that_are_written(model: str, overlaps: bool) -> None:
    watched = Watched(
        model, overlaps=overlaps, num_kv_blocks=200, chunk_tokens=16, role=Role.PREFILL
    )
    cached: list[KvReady] = []
    unwritten: list[int] = []

    def on_layer(spans: list[KvReady]) -> None:
        for span in spans:
            if span.end_layer - span.first_layer > 1:
                cached.append(span)
                unwritten.extend(watched.unwritten(span.block_ids[: span.end_token // BLOCK]))

    watched.engine.on_layer = on_layer
    watched.add("a", PROMPT, Mode.PREFILL)
    for _ in range(8):
        watched.engine.step()
    watched.add("b", (*PROMPT[:150], 1, 2, 3), Mode.PREFILL)
    for _ in range(3):
        watched.engine.step()
    assert cached
    assert cached[0].end_token >= 6 * BLOCK
    assert unwritten == []


@pytest.mark.parametrize("overlaps", [False, True])
def test_blocks_of_an_aborted_prompt_are_reserved_when_nobody_writes_them(
    model: str, overlaps: bool
) -> None:
    watched = Watched(
        model, overlaps=overlaps, num_kv_blocks=14, chunk_tokens=32, prefix_caching=False
    )
    watched.add("long", PROMPT)
    for _ in range(3):
        watched.engine.step()
    watched.add("reserved", PROMPT[:150], Mode.DECODE)
    watched.engine.abort("long")
    granted = []
    for _ in range(3):
        for event in watched.engine.step():
            if isinstance(event, KvReserved):
                granted.append(event)
                assert watched.unwritten(event.block_ids) == []
    assert granted
    assert set(granted[0].block_ids) & set(watched.writers)  # some were the aborted prompt's
