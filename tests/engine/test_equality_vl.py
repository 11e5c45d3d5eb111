"""The engine against transformers' generate(): pictures and videos, token for token."""

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from epidote_core.generation import Choice, GenerateRequest, MediaPixels
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.events import (
    KvReady,
    KvReserved,
    MediaReady,
    PrefillDone,
    RequestFailed,
    TokensOut,
)
from epidote_engine.sequence import Mode
from epidote_engine.settings import EngineConfig

if TYPE_CHECKING:
    from epidote_engine.engine import Engine

pytestmark = pytest.mark.skipif(
    find_spec("epidote_engine.engine") is None, reason="there is no engine yet"
)
NUM_TOKENS = 12
MIXES = ["ti", "i", "tiit", "v", "ivt", "t", "titvi"]  # text, image, video in order


def engine_of(case, role: Role = Role.ALL, **settings: Any) -> "Engine":
    from epidote_engine.engine import Engine

    sizes = {"num_kv_blocks": 200, "num_media_rows": 600}
    given = {"dtype": "float32", "native_decode": case.native} | sizes | settings
    return Engine(EngineConfig(model=case.path, role=role, **given))


def request(name: str, prompt, num_tokens: int = NUM_TOKENS, **sampling: Any):
    given = {"temperature": 0.0, "ignore_eos": True} | sampling
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=prompt.rendered.token_ids,
        sampling=SamplingParams(max_tokens=num_tokens, **given),
        media=prompt.rendered.media,
        choices=(Choice(),),
    )


def serve(engine: "Engine", prompts: dict, **sampling: Any):
    """(tokens, cached tokens) of each prompt, all served together; media come late, in turns."""
    waiting = [medium for prompt in prompts.values() for medium in prompt.media]
    for name, prompt in prompts.items():
        engine.add(request(name, prompt, **sampling))
    tokens: dict[str, list[int]] = {name: [] for name in prompts}
    cached: dict[str, int] = {}
    while waiting or engine.has_work():
        if waiting:
            engine.submit_media(waiting.pop())
        for event in engine.step():
            assert not isinstance(event, RequestFailed), event
            if isinstance(event, TokensOut):
                for chunk in event.chunks:
                    tokens[event.request_id] += chunk.token_ids
                    if chunk.finish_reason is not None:
                        cached[event.request_id] = chunk.num_cached_tokens
    assert engine.conservation_errors() == []
    return tokens, cached


@pytest.mark.parametrize("chunk_tokens", [5, 16, 512])
def test_all_mixes_together_in_chunks_of_any_size(vl_case, chunk_tokens):
    prompts = {mix: vl_case.prompt(mix) for mix in MIXES}
    engine = engine_of(vl_case, chunk_tokens=chunk_tokens, max_batched_tokens=96, block_size=8)
    tokens, _ = serve(engine, prompts)
    for mix, prompt in prompts.items():
        vl_case.check(prompt, tokens[mix])


def test_the_same_picture_hits_and_another_does_not(vl_case):
    engine = engine_of(vl_case, block_size=4, max_num_seqs=1)
    first = vl_case.prompt("titt")
    while first.media[0].num_tokens < 9:
        first = vl_case.prompt("titt")
    (medium,) = first.media
    changed = bytes(255 - byte for byte in medium.data)
    other_medium = replace(medium, key="other", data=changed)
    span = first.rendered.media[0]
    other_span = replace(span, key="other")
    rendered = replace(first.rendered, media=(other_span,))
    other = replace(first, rendered=rendered, media=(other_medium,))
    tokens, cached = serve(engine, {"cold": first})
    vl_case.check(first, tokens["cold"])
    assert cached["cold"] == 0
    tokens, cached = serve(engine, {"warm": first})
    vl_case.check(first, tokens["warm"])
    assert cached["warm"] >= span.end  # all of the picture, hence no embedding was needed
    tokens, cached = serve(engine, {"other": other})
    vl_case.check(other, tokens["other"])
    assert cached["other"] <= span.offset


def test_a_prompt_whose_picture_is_cached_needs_no_picture(vl_case):
    engine = engine_of(vl_case, block_size=4)
    prompt = vl_case.prompt("itt")
    vl_case.check(prompt, serve(engine, {"cold": prompt})[0]["cold"])
    tokens, cached = serve(engine, {"warm": replace(prompt, media=())})
    vl_case.check(prompt, tokens["warm"])
    assert cached["warm"] >= prompt.rendered.media[0].end


def test_too_few_blocks_preempt_and_change_nothing(vl_case):
    prompts = {f"{i}": vl_case.prompt(mix) for i, mix in enumerate(("it", "ti", "vt", "iit"))}
    longest = max(len(prompt.rendered.token_ids) for prompt in prompts.values())
    blocks = -(-(longest + NUM_TOKENS) // 8) + 4
    engine = engine_of(vl_case, block_size=8, num_kv_blocks=blocks, chunk_tokens=32)
    tokens, _ = serve(engine, prompts)
    for name, prompt in prompts.items():
        vl_case.check(prompt, tokens[name])


def copy_rows(source: "Engine", target: "Engine", medium: MediaPixels) -> None:
    """What two workers do with an embedding."""
    found = source.acquire_media(medium.key, "peer")
    room = target.reserve_media(medium.key, medium.num_tokens)
    assert found is not None
    assert room is not None
    if not room.ready:
        from_rows = [row for rows in found.rows for row in rows]
        to_rows = [row for rows in room.rows for row in rows]
        target.media_pool.tensor[to_rows] = source.media_pool.tensor[from_rows]
        target.commit_media(medium.key)
    source.release_media(medium.key, "peer")


@pytest.mark.parametrize("mix", ["tiit", "ivt", "v"])
def test_encode_prefill_and_decode_apart(vl_case, mix):
    encode, prefill, decode = (
        engine_of(vl_case, role, block_size=8, chunk_tokens=11)
        for role in (Role.ENCODE, Role.PREFILL, Role.DECODE)
    )
    prompt = vl_case.prompt(mix)
    for medium in prompt.media:
        encode.submit_media(medium)
    ready: set[str] = set()
    while encode.has_work():
        ready |= {e.key for e in encode.step() if isinstance(e, MediaReady)}
    assert ready == {medium.key for medium in prompt.media}

    wanted = request("r", prompt)
    decode.add(wanted, mode=Mode.DECODE)
    (reserved,) = (e for e in decode.step() if isinstance(e, KvReserved))
    assert reserved.num_cached_tokens == 0
    spans: list[KvReady] = []
    prefill.on_layer = spans.extend
    prefill.add(wanted, mode=Mode.PREFILL)
    for medium in prompt.media:
        copy_rows(encode, prefill, medium)
    done = None
    while done is None:
        done = next((e for e in prefill.step() if isinstance(e, PrefillDone)), None)
    for span in spans:
        for token in range(span.start_token, span.end_token):
            source, target = span.block_ids[token // 8], reserved.block_ids[token // 8]
            layers = slice(span.first_layer, span.end_layer)
            decode.kv_pool.tensor[layers, :, target, token % 8] = prefill.kv_pool.tensor[
                layers, :, source, token % 8
            ]
    decode.commit_kv("r", done.first)
    prefill.release_kv("r")
    tokens: list[int] = []
    while decode.has_work():
        for event in decode.step():
            if isinstance(event, TokensOut):
                tokens += [t for chunk in event.chunks for t in chunk.token_ids]
    vl_case.check(prompt, tokens)
    for engine in (encode, prefill, decode):
        assert engine.conservation_errors() == []
    assert prefill.is_drained()
    assert decode.is_drained()
