"""Planning a step while the last one runs changes nothing but the time: token for token.

On a CPU nothing runs beside the host, but the code is the same: tokens stay in tensors until the
next step was begun.
"""

import random

import pytest

from epidote_core.generation import Choice, GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import TokensOut
from epidote_engine.in_process import Answers, collect, serve, serve_apart
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("overlapped") / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=8)
    return str(path)


def engine_of(path: str, *, overlaps: bool, **given) -> Engine:
    values = {"dtype": "float32", "block_size": 4, "num_kv_blocks": 120, "max_num_seqs": 6,
              "max_batched_tokens": 40, "chunk_tokens": 11}  # fmt: skip
    return Engine(EngineConfig(model=path, overlap_steps=overlaps, **values | given))


ONE = (Choice(index=0),)


def request_of(
    name: str, prompt: tuple[int, ...], sampling: SamplingParams, choices=ONE
) -> GenerateRequest:
    return GenerateRequest(
        request_id=name, prompt_token_ids=prompt, sampling=sampling, choices=choices
    )


def workload(seed: int, count: int = 9) -> list[GenerateRequest]:
    """Requests that ask for everything: filters, penalties, logprobs, stops, several choices."""
    rng = random.Random(seed)
    requests = []
    for number in range(count):
        prompt = tuple(rng.randrange(256) for _ in range(rng.choice((1, 3, 4, 8, 30))))
        if number % 3 == 2:  # a prefix that an earlier one leaves in the cache
            prompt = requests[number - 1].prompt_token_ids + prompt
        sampling = SamplingParams(
            max_tokens=rng.choice((1, 2, 9, 25)),
            temperature=rng.choice((0.0, 0.7, 1.3)),
            top_k=rng.choice((0, 5)),
            top_p=rng.choice((1.0, 0.8)),
            min_p=rng.choice((0.0, 0.05)),
            repetition_penalty=rng.choice((1.0, 1.2)),
            frequency_penalty=rng.choice((0.0, 0.4)),
            seed=rng.getrandbits(40),
            logprobs=rng.choice((None, 0, 3)),
            min_tokens=rng.choice((0, 1)),
            ignore_eos=rng.random() < 0.5,
            stop=rng.choice(((), ("a", "b", "c", "d", "e"))),
        )
        choices = tuple(Choice(index=i) for i in range(rng.choice((1, 1, 3))))
        requests.append(request_of(f"r{number}", prompt, sampling, choices))
    return requests


def assert_told_the_same(got: Answers, want: Answers) -> None:
    """All that a client can see but times; logprobs come from batches of other sizes."""
    assert got.keys() == want.keys()
    for key, answer in got.items():
        other = want[key]
        assert answer.token_ids == other.token_ids, key
        assert answer.text == other.text
        assert answer.finish_reason == other.finish_reason
        assert answer.stop_reason == other.stop_reason
        assert [p.token_id for p in answer.logprobs] == [p.token_id for p in other.logprobs]
        for ours, theirs in zip(answer.logprobs, other.logprobs, strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
            assert len(ours.top) == len(theirs.top)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "given",
    [{}, {"num_kv_blocks": 17}, {"static_shapes": True, "prefix_caching": False}],
    ids=["room for all", "room for one or two", "padded"],
)
def test_answers_equal_those_of_plain_steps(text_model, given, seed):
    requests = workload(seed)
    want = serve(engine_of(text_model, overlaps=False, **given), requests)
    engine = engine_of(text_model, overlaps=True, **given)
    got = serve(engine, requests)
    assert_told_the_same(got, want)
    assert engine.is_drained()
    assert engine.conservation_errors() == []
    assert engine.load().num_free_kv_blocks == engine.kv_pool.num_blocks


def test_sequences_that_lose_their_blocks_meanwhile_go_on_the_same(text_model):
    sampling = [SamplingParams(max_tokens=40, temperature=0.8, seed=n) for n in range(6)]
    requests = [request_of(f"{n}", tuple(range(n, n + 9)), some) for n, some in enumerate(sampling)]
    want = serve(engine_of(text_model, overlaps=False), requests)
    engine = engine_of(text_model, overlaps=True, num_kv_blocks=30)
    assert_told_the_same(serve(engine, requests), want)
    assert engine.load().num_preemptions
    assert engine.conservation_errors() == []


def test_prefill_and_decode_apart_give_the_same(text_model):
    requests = [r for r in workload(7) if len(r.choices) == 1]
    want = serve(engine_of(text_model, overlaps=False), requests)
    apart = [engine_of(text_model, overlaps=True) for _ in range(2)]
    got = serve_apart(*apart, requests)
    assert_told_the_same(got, want)
    for engine in apart:
        assert engine.is_drained()
        assert engine.conservation_errors() == []


def test_pictures_too(qwen3):
    requests, media = [], []
    for number in range(3):
        pixels = qwen3.prepare_image(noise_image(90, 60, seed=number), f"{number}")
        message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
        rendered = qwen3.render_chat(message, media=(pixels,))
        requests.append(
            GenerateRequest(
                request_id=f"{number}",
                prompt_token_ids=tuple(rendered.token_ids),
                media=tuple(rendered.media),
                sampling=SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True),
            )
        )
        media.append(pixels)
    path = qwen3.spec.name
    want = serve(engine_of(path, overlaps=False), requests, media)
    got = serve(engine_of(path, overlaps=True), requests, media)
    assert_told_the_same(got, want)


def test_a_step_is_begun_before_the_last_ones_tokens_are_known(text_model):
    engine = engine_of(text_model, overlaps=True)
    sampling = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
    engine.add(request_of("a", (1, 2, 3), sampling))
    assert engine.step() == []  # the prompt's step is under way, nobody waited for it
    assert not engine.is_drained()
    tokens: list[int] = []
    for _ in range(3):
        (event,) = engine.step()
        assert isinstance(event, TokensOut)
        tokens += event.chunks[0].token_ids
    # its length says that the third is the last: no fourth step was begun for it
    assert not engine.has_work()
    plain = engine_of(text_model, overlaps=False)
    answers = serve(plain, [request_of("a", (1, 2, 3), sampling)])
    assert answers["a", 0].token_ids == tokens


def test_an_abort_waits_for_the_step_and_tells_nothing_more(text_model):
    engine = engine_of(text_model, overlaps=True)
    requests = [r for r in workload(1) if len(r.choices) == 1 and r.sampling.max_tokens > 8][:2]
    for request in requests:
        engine.add(request)
    engine.step()
    engine.abort(requests[0].request_id)
    answers: Answers = {}
    while engine.has_work():
        collect(answers, engine.step())
    assert {name for name, _ in answers} == {requests[1].request_id}
    assert engine.conservation_errors() == []
    assert engine.load().num_free_kv_blocks == engine.kv_pool.num_blocks
