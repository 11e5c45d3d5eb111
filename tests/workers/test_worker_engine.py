"""This file is about real engines in split workers: the tokens are those of transformers."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from epidote_core.generation import Choice, GenerateRequest, MediaPixels, Route
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_engine.vision.patches import Patchifier
from epidote_workers.in_process_fleet import InProcessFleet, running

pytest.importorskip("epidote_engine.engine")

E, P, D, ALL = Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL
NUM_TOKENS = 24
SPLITS: dict[str, dict[str, Role]] = {
    "1 all": {"a": ALL},
    "1E1P1D": {"e": E, "p": P, "d": D},
    "2E1P2D": {"e1": E, "e2": E, "p": P, "d1": D, "d2": D},
}


@dataclass(frozen=True)
class Asked:
    """A request, its pixels, and what transformers generates."""

    request: GenerateRequest
    pixels: tuple[MediaPixels, ...]
    expected: list[int]


@dataclass(frozen=True)
class Model:
    path: str
    asked: tuple[Asked, ...]
    has_encoder: bool


def expected_of(
    reference: Any, processor: PromptProcessor, ids: Sequence[int], asked: Sequence[MediaPixels],
    spans: Sequence[Any],
) -> list[int]:  # fmt: skip
    import transformers

    inputs: dict[str, Any] = {}
    if spans:
        types = torch.zeros(1, len(ids), dtype=torch.int)
        for span in spans:
            for offset, count in span.token_runs:
                types[0, offset : offset + count] = 1
        vision = processor.spec.vision
        assert vision is not None
        patchify = Patchifier(vision, dtype=torch.float32, device=torch.device("cpu"))
        inputs = {
            "mm_token_type_ids": types,
            "pixel_values": patchify(list(asked)),
            "image_grid_thw": torch.tensor([pixels.grid_thw for pixels in asked]),
        }
    prompt = torch.tensor([list(ids)])
    greedy = transformers.GenerationConfig(
        max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0
    )
    with torch.no_grad():
        out = reference.generate(
            prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy, **inputs
        )
    return [int(token) for token in out[0, len(ids) :]]


@pytest.fixture(scope="module", params=[Architecture.QWEN3, Architecture.QWEN3_VL], ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model")
    reference = save_tiny_model(path, request.param, seed=1)
    reference.generation_config.eos_token_id = None
    processor = PromptProcessor.from_model(str(path))
    rng = random.Random(3)
    asked = []
    for number in range(6):
        pictures = rng.randint(1, 3) if processor.supports_images and number % 2 == 0 else 0
        pixels = tuple(
            processor.prepare_image(
                noise_image(rng.randint(20, 150), rng.randint(20, 150), seed=10 * number + i),
                f"{number}.{i}",
            )
            for i in range(pictures)
        )
        text = "".join(rng.choice("abcdefgh ") for _ in range(rng.randint(1, 90)))
        content: Any = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
        rendered = processor.render_chat([{"role": "user", "content": content}], media=pixels)
        asked.append(
            Asked(
                GenerateRequest(
                    request_id=f"r{number}",
                    prompt_token_ids=rendered.token_ids,
                    sampling=SamplingParams(
                        max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True
                    ),
                    media=rendered.media,
                ),
                pixels,
                expected_of(reference, processor, rendered.token_ids, pixels, rendered.media),
            )
        )
    return Model(str(path), tuple(asked), processor.supports_images)


@asynccontextmanager
async def fleet_of(
    model: Model, directory: Path, roles: dict[str, Role], **config: Any
) -> AsyncIterator[InProcessFleet]:
    torch.set_num_threads(1)
    if not model.has_encoder:
        roles = {worker_id: role for worker_id, role in roles.items() if role is not E}
    sizes = {"num_kv_blocks": 128, "num_media_rows": 256, "chunk_tokens": 32, **config}
    fleet = InProcessFleet(directory, EngineConfig(model=model.path, dtype="float32", **sizes))
    async with running(fleet, roles):
        yield fleet
        assert await fleet.leaks() == {}


@pytest.mark.parametrize("split", SPLITS)
async def test_any_split_says_what_transformers_says(
    model: Model, tmp_path: Path, split: str
) -> None:
    """Twice, so that the second time hits prefix and encoder caches; all at once."""
    async with fleet_of(model, tmp_path, SPLITS[split]) as fleet:
        rng = random.Random(1)
        for _ in range(2):
            routes = [fleet.route(asked.pixels, rng) for asked in model.asked]
            answers = await asyncio.gather(
                *(
                    fleet.ask(asked.request, route, asked.pixels)
                    for asked, route in zip(model.asked, routes, strict=True)
                    if route is not None
                )
            )
            assert [answer[0] for answer in answers] == [asked.expected for asked in model.asked]


async def test_samples_do_not_depend_on_the_split_nor_on_resumption(
    model: Model, tmp_path: Path
) -> None:
    """Seeded sampling, three choices, penalties: one worker, split, and split after a loss."""
    async with fleet_of(model, tmp_path, {"a": ALL, **SPLITS["1E1P1D"]}) as fleet:
        for asked in model.asked[:3]:
            request = replace(
                asked.request,
                sampling=SamplingParams(
                    max_tokens=NUM_TOKENS, temperature=1.0, top_p=0.95, seed=7,
                    presence_penalty=0.5, ignore_eos=True,
                ),
                choices=tuple(Choice(index=i) for i in range(3)),
            )  # fmt: skip
            one = Route(prefill="a", decode="a", encode=tuple((p.key, "a") for p in asked.pixels))
            split = Route(prefill="p", decode="d", encode=tuple((p.key, "e") for p in asked.pixels))
            whole = await fleet.ask(request, one, asked.pixels)
            assert await fleet.ask(request, split, asked.pixels) == whole
            for cuts in ({0: 5, 1: 9, 2: 1}, {0: NUM_TOKENS, 1: 3, 2: 20}, {0: NUM_TOKENS}):
                resumed = replace(
                    request,
                    choices=tuple(
                        Choice(index=i, emitted_token_ids=tuple(whole[i][:cut]))
                        for i, cut in cuts.items()
                    ),
                )
                rest = await fleet.ask(resumed, split, asked.pixels)
                for i, cut in cuts.items():
                    assert whole[i][:cut] + rest[i] == whole[i]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
async def test_kv_of_one_byte_travels_and_changes_nothing(
    model: Model, tmp_path: Path, kind: str
) -> None:
    """Prefill's codes, read with the scales that decode has measured itself."""
    roles = {"a": ALL, **SPLITS["1E1P1D"]}
    async with fleet_of(model, tmp_path, roles, kv_cache_dtype=kind) as fleet:
        for asked in model.asked[:3]:
            one = Route(prefill="a", decode="a", encode=tuple((p.key, "a") for p in asked.pixels))
            split = Route(prefill="p", decode="d", encode=tuple((p.key, "e") for p in asked.pixels))
            whole = await fleet.ask(asked.request, one, asked.pixels)
            assert len(whole[0]) == NUM_TOKENS
            assert await fleet.ask(asked.request, split, asked.pixels) == whole


async def test_streams_survive_switches_in_all_six_directions(model: Model, tmp_path: Path) -> None:
    roles = {"e1": E, "e2": E, "p1": P, "p2": P, "d1": D, "d2": D}
    if not model.has_encoder:
        pytest.skip("a text model has no encoder to switch to")
    moves = [(P, E), (E, D), (D, P), (P, D), (D, E), (E, P)]
    async with fleet_of(model, tmp_path, roles) as fleet:
        rng = random.Random(2)
        switched: list[float] = []
        finished = 0
        is_over = False

        async def user(number: int) -> None:
            nonlocal finished
            mine = random.Random(number)
            while not is_over:
                asked = mine.choice(model.asked)
                request = replace(asked.request, cache_salt=str(mine.random()))
                tokens, _ = await fleet.ask_until_done(request, asked.pixels, mine)
                assert tokens == asked.expected
                finished += 1

        async def switcher() -> None:
            nonlocal is_over
            for before, after in moves:
                await asyncio.sleep(0.2)
                holders = [view for view in fleet.client.workers() if view.role is before]
                start_s = time.monotonic()
                outcome = await fleet.client.switch_role(
                    rng.choice(holders).worker_id, after, deadline_s=120.0
                )
                assert outcome.ok, outcome
                switched.append(time.monotonic() - start_s)
                print(f"{before} to {after}: {outcome}")
            is_over = True

        async with asyncio.TaskGroup() as group:
            group.create_task(switcher())
            for number in range(8):
                group.create_task(user(number))
        assert len(switched) == 6
        assert finished >= 8


async def test_one_block_chunks_and_a_tight_pool(model: Model, tmp_path: Path) -> None:
    """Smallest chunks, a pool so small that decoding preempts: the tokens are the same."""
    tight = {"chunk_tokens": 16, "num_kv_blocks": 40, "max_num_seqs": 8}
    async with fleet_of(model, tmp_path, SPLITS["1E1P1D"], **tight) as fleet:
        rng = random.Random(1)

        async def one(asked: Asked, number: int) -> None:
            request = replace(asked.request, cache_salt=str(number))
            tokens, _ = await fleet.ask_until_done(request, asked.pixels, rng)
            assert tokens == asked.expected

        await asyncio.gather(*(one(asked, number) for number in range(2) for asked in model.asked))
