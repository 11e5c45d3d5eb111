"""Payloads follow from the seed and the index alone, and carry what their attributes say."""

import base64
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_loadgen.pictures import ImageFormat, decode, draw
from epidote_loadgen.questions import FACTS
from epidote_loadgen.records import PlannedRequest, Slot
from epidote_loadgen.traces.trace_window import Trace
from epidote_loadgen.workload.body import Api, BodyStyle
from epidote_loadgen.workload.distributions import Choice, Fixed, LogNormal, Uniform
from epidote_loadgen.workload.length_class import LengthClass
from epidote_loadgen.workload.maker import ClassTraits, Maker
from epidote_loadgen.workload.mixed import MixedWorkload
from epidote_loadgen.workload.paraphrase_class import ParaphraseClass
from epidote_loadgen.workload.picture_source import PictureSource
from epidote_loadgen.workload.question_class import QuestionClass
from epidote_loadgen.workload.resolution import ResolutionMix, size_of_tokens
from epidote_loadgen.workload.shared_prefix import SharedPrefix
from epidote_loadgen.workload.trace_class import TraceClass
from epidote_loadgen.workload.zipf import Zipf

STYLE = BodyStyle(model="m")


def slot(item: int, name: str = "c") -> Slot:
    return Slot(index=item, intended_send_s=0.0, class_name=name, item=item)


def traits(**more: Any) -> ClassTraits:
    return ClassTraits(**{"name": "c", "seed": 7, "style": STYLE} | more)


def pictures(**more: Any) -> PictureSource:
    return PictureSource(**{"seed": 7, "name": "c"} | more)


def body(request: PlannedRequest) -> dict[str, Any]:
    value = json.loads(request.body)
    assert isinstance(value, dict)
    return value


def words(request: PlannedRequest) -> list[str]:
    content = body(request)["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"]).split()


def sent_images(request: PlannedRequest) -> list[bytes]:
    content = body(request)["messages"][-1]["content"]
    urls = [p["image_url"]["url"] for p in content if p["type"] == "image_url"]
    return [base64.b64decode(url.split(",", 1)[1]) for url in urls]


LENGTHS = LengthClass(
    traits=traits(prefix=SharedPrefix(seed=7, name="c", num_tokens=50, reuse=Zipf(count=5))),
    prompt_tokens=Uniform(5, 200),
    output_tokens=LogNormal(median=20.0, sigma=1.0, high=100),
    num_images=Choice({0: 0.5, 2: 0.5}),
    pictures=pictures(reuse=Zipf(count=10)),
)
QUESTIONS = QuestionClass(
    traits=traits(), num_images=Fixed(1), pictures=pictures(), num_turns=3, num_sessions=2
)
PARAPHRASES = ParaphraseClass(traits=traits(), reuse=Zipf(count=30), pictures=pictures())


@pytest.mark.parametrize("maker", [LENGTHS, QUESTIONS, PARAPHRASES], ids=lambda m: type(m).__name__)
def test_a_request_is_a_function_of_seed_and_item_in_any_order_and_process(maker: Maker) -> None:
    workload = MixedWorkload({"c": maker})
    elsewhere: MixedWorkload = pickle.loads(pickle.dumps(workload))
    forward = [workload.request(slot(item)) for item in range(12)]
    backward = [elsewhere.request(slot(item)) for item in reversed(range(12))]
    assert forward == backward[::-1]
    assert len({request.body for request in forward}) > 6


def test_filler_has_as_many_words_as_tokens_were_asked_for() -> None:
    for item in range(30):
        made = LENGTHS.request(slot(item))
        assert made.attributes.prompt_tokens == len(words(made)) + 50
        assert body(made)["max_tokens"] == body(made)["min_tokens"]
        assert body(made)["max_tokens"] == made.attributes.max_output_tokens


def test_the_templates_tokens_are_taken_off_the_filler() -> None:
    maker = LengthClass(
        traits=traits(),
        prompt_tokens=Fixed(100),
        output_tokens=Fixed(4),
        num_images=Fixed(0),
        template_tokens=12,
    )
    assert len(words(maker.request(slot(0)))) == 88


def test_token_ids_are_exact_without_a_tokenizer() -> None:
    maker = LengthClass(
        traits=traits(style=BodyStyle(model="m", api=Api.COMPLETIONS)),
        prompt_tokens=Fixed(333),
        output_tokens=Fixed(1),
        num_images=Fixed(0),
        as_ids=True,
    )
    made = maker.request(slot(3))
    assert len(body(made)["prompt"]) == 333
    assert made.path == "/v1/completions"


def test_images_and_prefixes_are_reused_apart_from_each_other() -> None:
    made = [LENGTHS.request(slot(item)) for item in range(400)]
    prefixes = Counter(request.attributes.prefix_id for request in made)
    images = Counter(image for request in made for image in request.attributes.image_ids)
    assert len(prefixes) == 5
    assert len(images) == 10
    assert prefixes["c-prefix-0"] > 2 * prefixes["c-prefix-4"]
    together = {(r.attributes.prefix_id, i) for r in made for i in r.attributes.image_ids}
    assert len(together) > 40  # of 50: knowing the one tells nothing of the other
    texts = {r.attributes.prefix_id: body(r)["messages"][0]["content"] for r in made}
    assert len(set(texts.values())) == 5
    assert all(body(r)["messages"][0]["content"] == texts[r.attributes.prefix_id] for r in made)


def test_equal_image_ids_are_equal_bytes_and_others_differ() -> None:
    seen: dict[str, bytes] = {}
    for item in range(60):
        made = LENGTHS.request(slot(item))
        if made.attributes.num_images:
            for name, data in zip(made.attributes.image_ids, sent_images(made), strict=True):
                assert seen.setdefault(name, data) == data
    assert len(set(seen.values())) == len(seen) > 5


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_pictures_are_real_files_of_the_resolution_asked_for(image_format: ImageFormat) -> None:
    source = pictures(image_format=image_format, resolutions=ResolutionMix({(224, 160): 1.0}))
    picture = source.picture("x")
    head, data = picture.data_url.split(",", 1)
    assert head == f"data:image/{image_format};base64"
    image = decode(base64.b64decode(data))
    assert image.size == (224, 160)
    if image_format is ImageFormat.PNG:
        assert image.tobytes() == draw(picture.scene).tobytes()


def test_a_resolution_mix_is_kept() -> None:
    source = pictures(resolutions=ResolutionMix({(96, 96): 3.0, (320, 192): 1.0}))
    sizes = Counter(source.scene(str(n)).width_px for n in range(1000))
    assert 0.7 < sizes[96] / 1000 < 0.8


def test_a_conversation_repeats_its_history_with_the_right_answers() -> None:
    made = {}
    for item in range(12):
        request = QUESTIONS.request(slot(item))
        made[request.attributes.session_id, request.attributes.turn] = request
    assert sorted({session for session, _ in made}) == ["c-0", "c-1", "c-2", "c-3"]
    for session in ("c-0", "c-3"):
        first, second, third = (body(made[session, turn])["messages"] for turn in range(3))
        assert second[:1] == first
        assert third[:3] == second[:3]
        assert [message["role"] for message in third] == ["user", "assistant"] * 2 + ["user"]
        assert second[1]["content"] == made[session, 0].expected_answer
        assert third[3]["content"] == made[session, 1].expected_answer


def test_sessions_take_turns() -> None:
    assert [QUESTIONS.place(item) for item in range(8)] == [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
        (2, 0),
        (3, 0),
    ]


def test_questions_about_more_pictures_than_there_are_words_for_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 3 pictures"):
        QuestionClass(traits=traits(), num_images=Fixed(4), pictures=pictures())


def test_paraphrases_share_an_answer_and_traps_never_do() -> None:
    answers: dict[str, set[str]] = {}
    trapped: dict[str, set[str]] = {}
    texts: dict[str, set[str]] = {}
    for item in range(600):
        made = PARAPHRASES.request(slot(item))
        kept = trapped if made.attributes.is_trap else answers
        assert made.expected_answer is not None
        kept.setdefault(made.attributes.group_id, set()).add(made.expected_answer)
        texts.setdefault(made.attributes.group_id, set()).add(" ".join(words(made)))
    assert all(len(group) == 1 for group in answers.values())
    assert all(not trapped[name] & answers[name] for name in trapped if name in answers)
    assert sum(map(len, trapped.values())) >= 15
    assert max(map(len, texts.values())) >= 4
    facts = {answer for _, answer in FACTS}
    assert any(group & facts for group in answers.values())


def test_trap_ratio_is_kept() -> None:
    made = [PARAPHRASES.request(slot(item)).attributes for item in range(1000)]
    traps = sum(attributes.is_trap for attributes in made)
    # facts whose wording is unlike any other's have no traps
    assert 100 <= traps <= 240


def test_tenants_come_by_weight_and_in_the_header() -> None:
    maker = ParaphraseClass(
        traits=traits(tenants={"red": 3.0, "blue": 1.0}, tenant_header="x-tenant"),
        reuse=Zipf(count=3),
        pictures=pictures(),
        kinds=("sum",),
    )
    made = [maker.request(slot(item)) for item in range(400)]
    share = sum(request.attributes.tenant == "red" for request in made) / 400
    assert 0.65 < share < 0.85
    assert all(r.headers == (("x-tenant", r.attributes.tenant),) for r in made)


SERVEGEN = """t_s,client_id,text_tokens,image_count,image_tokens,output_tokens
0.0,7,75,1,252,179
0.5,8,217,3,100 64 9,12
2.0,8,30,0,,5
"""


def trace_class(path: Path, text: str, **more: Any) -> TraceClass:
    path.write_text(text, encoding="utf-8")
    return TraceClass(traits=traits(), trace=Trace(path=path), pictures=pictures(), **more)


def test_a_replayed_row_has_its_tokens_its_images_and_its_output(tmp_path: Path) -> None:
    maker = trace_class(tmp_path / "s.csv", SERVEGEN)
    for item, row in enumerate(maker.trace.rows):
        made = maker.request(slot(item))
        assert body(made)["max_tokens"] == row.output_tokens
        assert made.attributes.num_images == len(row.image_tokens)
        images = sent_images(made) if row.image_tokens else []
        sizes = [decode(data).size for data in images]
        tokens = sum(width * height // 28**2 for width, height in sizes)
        assert len(words(made)) + tokens == row.prompt_tokens
        assert made.attributes.modality is (Modality.IMAGE if images else Modality.TEXT)
        assert made.attributes.tenant == row.tenant


def test_equal_prefix_blocks_become_equal_beginnings(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]},
        {"timestamp": 9, "input_length": 700, "output_length": 5, "hash_ids": [0, 3]},
        {"timestamp": 10, "input_length": 1600, "output_length": 5, "hash_ids": [0, 1, 4]},
    ]
    maker = trace_class(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))
    first, second, third = (words(maker.request(slot(item))) for item in range(3))
    assert [len(first), len(second), len(third)] == [1030, 700, 1600]
    assert first[:512] == second[:512]
    assert first[512:700] != second[512:700]
    assert first[:1024] == third[:1024]


def test_a_row_with_its_own_messages_is_sent_as_it_is(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    row = {"at_s": 0, "output_tokens": 3, "messages": messages}
    made = trace_class(tmp_path / "o.jsonl", json.dumps(row), exact=False).request(slot(0))
    assert body(made)["messages"] == messages
    assert "ignore_eos" not in body(made)


@given(st.integers(1, 20_000), st.sampled_from([28, 32]))
@settings(max_examples=200, deadline=None)
def test_a_picture_of_n_tokens_has_hardly_fewer_and_never_more(n: int, side_px: int) -> None:
    (width, height), num_tokens = size_of_tokens(n, side_px=side_px)
    assert width * height == num_tokens * side_px**2
    assert num_tokens <= n
    assert n - num_tokens <= 0.06 * n + 2
    assert width <= 2 * height or num_tokens <= 2


def test_zipf_ranks_fall_off_as_asked() -> None:
    rng = traits().rng(0, "zipf")
    zipf = Zipf(count=100, exponent=1.0)
    drawn = Counter(zipf.sample(rng) for _ in range(20_000))
    assert 1.7 < drawn[0] / drawn[1] < 2.3
    assert 8 < drawn[0] / drawn[9] < 12


@pytest.mark.parametrize(("count", "exponent"), [(0, 1.0), (5, -0.1), (5, float("inf"))])
def test_a_zipf_law_that_is_none_is_refused(count: int, exponent: float) -> None:
    with pytest.raises(ValueError, match="Zipf"):
        Zipf(count=count, exponent=exponent)
