"""Logits that leave nothing to choose from end their own request, and no other."""

from dataclasses import replace

import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.generation import Choice, GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import Event, Fault, PrefillDone, RequestFailed, TokensOut
from epidote_engine.in_process import serve
from epidote_engine.sampler import NO_TOKEN
from epidote_engine.sequence import Mode
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
DRAWN = replace(GREEDY, temperature=1.0, seed=4)
BAD_PROMPT, BAD_TOKENS = (9, 9, 9, 9, 9), 7  # computed tokens at which its logits go wrong


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("unusable") / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=8)
    return str(path)


def engine_of(path: str, *, overlaps: bool = False) -> Engine:
    return Engine(
        EngineConfig(
            model=path, dtype="float32", block_size=4, num_kv_blocks=60, max_num_seqs=6,
            overlap_steps=overlaps,
        )
    )  # fmt: skip


def request(name: str, prompt: tuple[int, ...], sampling: SamplingParams, n: int = 1):
    choices = tuple(Choice(index=index) for index in range(n))
    return GenerateRequest(
        request_id=name, prompt_token_ids=prompt, sampling=sampling, choices=choices
    )


def spoil(engine: Engine, value: float, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Whenever a row of the bad prompt has `at` tokens, its logits are all `value`."""
    sampler = engine._parts.runner._sampler  # type: ignore[union-attr]
    rows = engine._rows

    def is_bad(row: int) -> bool:
        seq = rows.owners[row]
        return seq is not None and seq.request_id == "bad" and rows.num_tokens[row] == at

    for name in ("sample", "draft"):
        right = getattr(sampler, name)

        def wrong(logits, which, right=right):
            logits = logits.clone()
            logits[[is_bad(row) for row in which.tolist()]] = value
            return right(logits, which)

        monkeypatch.setattr(sampler, name, wrong)


def run(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
    return events


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "sampling",
    [GREEDY, DRAWN, replace(DRAWN, top_p=0.5, logprobs=2), replace(DRAWN, repetition_penalty=1.3)],
    ids=["greedy", "drawn", "filtered with logprobs", "penalised"],
)
def test_only_the_request_of_the_bad_row_fails(text_model, monkeypatch, sampling, value, overlaps):
    good = [request("one", (1, 2, 3), GREEDY), request("two", (4, 5, 6, 7), DRAWN, n=2)]
    want = serve(engine_of(text_model), good)
    engine = engine_of(text_model, overlaps=overlaps)
    spoil(engine, value, monkeypatch, BAD_TOKENS)
    for one in (good[0], request("bad", BAD_PROMPT, sampling, n=2), good[1]):
        engine.add(one)
    events = run(engine)
    (failed,) = [event for event in events if isinstance(event, RequestFailed)]
    assert (failed.request_id, failed.fault) == ("bad", Fault.COMPUTE)
    assert "no token can be chosen" in failed.message
    told: dict[tuple[str, int], list[int]] = {}
    for event in events:
        if isinstance(event, TokensOut):
            for chunk in event.chunks:
                told.setdefault((event.request_id, chunk.index), []).extend(chunk.token_ids)
    assert {key: told[key] for key in want} == {key: want[key].token_ids for key in want}
    assert NO_TOKEN not in told.get(("bad", 0), [])
    assert engine.is_drained()
    assert engine.conservation_errors() == []


def test_a_prompt_for_a_peer_fails_and_leaves_no_name_in_the_prefix_cache(text_model, monkeypatch):
    engine = engine_of(text_model)
    spoil(engine, float("nan"), monkeypatch, len(BAD_PROMPT))
    engine.add(request("bad", BAD_PROMPT, GREEDY), mode=Mode.PREFILL)
    engine.add(request("good", (1, 2, 3), GREEDY), mode=Mode.PREFILL)
    events = run(engine)
    assert [e.request_id for e in events if isinstance(e, RequestFailed)] == ["bad"]
    assert [e.request_id for e in events if isinstance(e, PrefillDone)] == ["good"]
    assert not engine.take_cache_changes().blocks_added
    engine.release_kv("good")
    assert engine.conservation_errors() == []


def test_numbers_that_overflow_in_the_sampler_end_the_request_alone(text_model):
    """Past the checks of `SamplingParams`, as a larger model's logits might be."""
    engine = engine_of(text_model)
    for name, value in (("repetition_penalty", 1e-40), ("top_p", 1e-46)):
        sampling = replace(DRAWN)
        object.__setattr__(sampling, name, value)
        engine.add(request(name, (5, 6, 7), sampling))
    engine.add(request("good", (1, 2, 3), DRAWN))
    events = run(engine)
    failed = {event.request_id for event in events if isinstance(event, RequestFailed)}
    assert failed == {"repetition_penalty", "top_p"}
    assert engine.conservation_errors() == []


def test_ruling_out_the_whole_vocabulary_is_refused_by_name(text_model):
    engine = engine_of(text_model)
    every = tuple(range(engine._capacity.vocab))
    with pytest.raises(InvalidRequest, match="stop_token_ids holds all") as refused:
        engine.add(request("r", (1,), replace(DRAWN, min_tokens=2, stop_token_ids=every)))
    assert refused.value.field == "min_tokens"
    engine.add(request("r", (1,), replace(DRAWN, stop_token_ids=every)))  # ends with one token
    assert engine.load().num_waiting == 1


# -- steps that raise


def breaking(engine: Engine, monkeypatch: pytest.MonkeyPatch, names: set[str], times: int) -> None:
    """A step that computes any of `names` raises after its pass, `times` times."""
    runner = engine._parts.runner
    assert runner is not None
    right, left = runner.step, [times]

    def step(plan, **given):
        at_work = {seq.request_id for seq in (*plan.decodes, *(p[0] for p in plan.prefills))}
        sampled = right(plan, **given)
        if at_work & names and left[0]:
            left[0] -= 1
            raise IndexError("index out of range")
        return sampled

    monkeypatch.setattr(runner, "step", step)


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_broken_step_ends_its_requests_and_the_engine_goes_on(text_model, monkeypatch, overlaps):
    engine = engine_of(text_model, overlaps=overlaps)
    engine.add(request("a", (1, 2, 3), DRAWN, n=2))
    engine.add(request("b", (4, 5, 6), GREEDY))
    for _ in range(3):
        engine.step()
    breaking(engine, monkeypatch, {"a"}, times=1)
    events = run(engine)
    failed = [event for event in events if isinstance(event, RequestFailed)]
    assert {(e.request_id, e.fault) for e in failed} == {("a", Fault.STEP), ("b", Fault.STEP)}
    assert engine.conservation_errors() == []
    again = [request("b", (4, 5, 6), GREEDY), request("c", (4, 5, 6, 1), DRAWN)]
    want = serve(engine_of(text_model), again)
    got = serve(engine, again)
    assert {key: got[key].token_ids for key in got} == {key: want[key].token_ids for key in want}
    assert engine.load().num_free_kv_blocks == engine.kv_pool.num_blocks


def test_who_was_alone_in_a_broken_step_is_the_cause(text_model, monkeypatch):
    engine = engine_of(text_model)
    breaking(engine, monkeypatch, {"alone"}, times=1)
    engine.add(request("alone", (1, 2, 3), DRAWN))
    (failed,) = run(engine)
    assert isinstance(failed, RequestFailed)
    assert failed.fault is Fault.COMPUTE


def test_an_engine_that_breaks_every_step_ends(text_model, monkeypatch):
    engine = engine_of(text_model)
    names = {f"r{number}" for number in range(9)}
    breaking(engine, monkeypatch, names, times=9)
    for name in sorted(names)[:3]:
        engine.add(request(name, (1, 2, 3), DRAWN))
        assert len(run(engine)) == 1
    engine.add(request("r8", (1, 2, 3), DRAWN))
    with pytest.raises(IndexError):
        run(engine)


def test_unsound_books_after_a_broken_step_end_the_engine(text_model, monkeypatch):
    engine = engine_of(text_model)
    breaking(engine, monkeypatch, {"r"}, times=1)
    monkeypatch.setattr(engine, "conservation_errors", lambda: ["a block is lost"])
    engine.add(request("r", (1, 2, 3), DRAWN))
    with pytest.raises(IndexError):
        run(engine)
