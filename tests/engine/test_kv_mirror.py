"""The CPU's mirror of the KV pool under any coming and going: it always equals the pool."""

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from epidote_core.generation import Choice, GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine import kv_mirror
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.kv_mirror import KvMirror
from epidote_engine.rows import BatchRows
from epidote_engine.sequence import Mode, Sequence
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

LAYERS, BLOCK, KV_HEADS, DIM = 2, 4, 2, 3
MAX_ROWS, MAX_BLOCKS = 5, 40


class AnyBatch(RuleBasedStateMachine):
    """Sequences come and go, and any of them take a step, here or in the general pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = torch.zeros(LAYERS, 2, MAX_ROWS * MAX_BLOCKS, BLOCK, KV_HEADS, DIM)
        self.rows = BatchRows(MAX_ROWS, MAX_BLOCKS)
        self.mirror = KvMirror(self.pool, self.rows)
        self.running: list[Sequence] = []

    @precondition(lambda self: len(self.running) < MAX_ROWS)
    @rule(num_tokens=st.integers(1, 3 * BLOCK))
    def come(self, num_tokens):
        request = GenerateRequest(
            request_id="r",
            prompt_token_ids=(1,) * num_tokens,
            sampling=SamplingParams(max_tokens=9),
        )
        seq = Sequence(
            request=request, choice=Choice(), mode=Mode.GENERATE, arrival=0,
            token_ids=[1] * num_tokens,
        )  # fmt: skip
        self.rows.assign(seq, 0)
        first = seq.row * MAX_BLOCKS
        seq.blocks = list(range(first + MAX_BLOCKS - 1, first - 1, -1))
        self.rows.follow_blocks(seq)
        for place in range(num_tokens - 1):
            self.file(seq, place)
        self.running.append(seq)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def go(self, data):
        seq = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.rows.release(seq)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), padded=st.integers(1, 4), mirrored=st.booleans())
    def decode(self, data, padded, mirrored):
        batch = data.draw(st.permutations(self.running))
        batch = batch[: data.draw(st.integers(1, len(batch)))]
        if len(batch[0].token_ids) >= MAX_BLOCKS * BLOCK:
            return
        if mirrored:
            self.check(batch, max(padded, len(batch)))
        for seq in batch:
            self.file(seq, len(seq.token_ids) - 1)
            seq.token_ids.append(1)
        self.rows.append(np.array([seq.row for seq in batch]), np.ones(len(batch), np.int64))

    def check(self, batch, num_slots):
        rows = np.array([seq.row for seq in batch])
        index = self.rows.num_tokens[rows] - 1
        assert self.mirror.make_room(num_slots, int(index.max()) + 1)
        order = self.mirror.seat(rows, num_slots)
        if order is not None:
            assert (np.arange(len(rows))[order[0]][order[1]] == np.arange(len(rows))).all()
            batch, rows, index = [batch[i] for i in order[0]], rows[order[0]], index[order[0]]
        self.mirror.follow(rows, index)
        cells = self.mirror.cells(index)
        assert cells.shape == (len(rows), 2 * KV_HEADS)
        for slot, seq in enumerate(batch):
            count = len(seq.token_ids) - 1
            mine = self.mirror.keys_values[:, :, slot, :, :count].transpose(2, 3)
            assert torch.equal(mine, self.filed(seq)[:, :, :count])
            assert self.mirror.visible[slot].isfinite().sum() == count
            # what the step computes goes to the pool and here alike
            flat = self.mirror.keys_values.view(LAYERS, -1, DIM)
            flat[:, cells[slot]] = self.value(seq, count).reshape(LAYERS, -1, DIM)
        bias = self.mirror.bias(np.pad(index, (0, num_slots - len(index))), int(index.max()) + 1)
        assert bias.shape == (num_slots, 1, 1, int(index.max()) + 1)
        assert bias.isfinite().sum(-1).view(-1).tolist() == [
            *(index + 1), *[1] * (num_slots - len(index))
        ]  # fmt: skip

    def value(self, seq, place):
        """Recognisable KV [LAYERS, 2, KV_HEADS, DIM] of one token."""
        first = self.rows.stay[seq.row] * 1000 + place
        return first + torch.arange(LAYERS * 2 * KV_HEADS * DIM).view(LAYERS, 2, KV_HEADS, DIM) / 64

    def file(self, seq, place):
        self.pool[:, :, seq.blocks[place // BLOCK], place % BLOCK] = self.value(seq, place)

    def filed(self, seq):
        return self.pool[:, :, seq.blocks].flatten(2, 3)


TestAnyBatch = AnyBatch.TestCase
TestAnyBatch.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("max_bytes", [0, 20_000])
def test_a_batch_too_large_for_the_mirror_is_decoded_by_the_general_pass(
    tmp_path, monkeypatch, max_bytes
):
    save_tiny_model(tmp_path / "tiny", Architecture.QWEN3, seed=4)
    config = EngineConfig(
        model=str(tmp_path / "tiny"), dtype="float32", num_kv_blocks=40, native_decode=False
    )
    requests = [
        GenerateRequest(
            request_id=f"{i}",
            prompt_token_ids=tuple(range(1, 4 + 5 * i)),
            sampling=SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True),
        )
        for i in range(4)
    ]
    expected = serve(Engine(config), requests)
    monkeypatch.setattr(kv_mirror, "_MAX_BYTES", max_bytes)
    engine = Engine(config)
    answers = serve(engine, requests)
    assert {key: a.token_ids for key, a in answers.items()} == {
        key: a.token_ids for key, a in expected.items()
    }
    assert engine.conservation_errors() == []
