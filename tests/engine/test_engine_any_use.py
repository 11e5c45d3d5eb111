"""The engine under any order of calls: nothing is lost, nothing is counted twice, all comes back.

One tiny engine with images and text; memory so small that preemption, parking, eviction and waiting
reservations are the rule. What the tokens are is the equality tests' business.
"""

import functools
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epidote_core.errors import InvalidRequest
from epidote_core.generation import Choice, GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import FirstToken, KvReserved, MediaReady, PrefillDone, TokensOut
from epidote_engine.processing import PromptProcessor
from epidote_engine.sequence import Mode
from epidote_engine.settings import WeightsPolicy
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model

NUM_BLOCKS, NUM_ROWS = 40, 48
STEPS_TO_THE_END = 2000


@functools.cache
def tiny_model():
    """(directory, prompts with their media): two of text, two with a picture."""
    path = Path(tempfile.mkdtemp()) / "tiny"
    save_tiny_model(path, Architecture.QWEN3_VL, seed=3)
    processor = PromptProcessor.from_model(str(path))
    prompts = []
    for content in ("abc", "abcdefgh " * 4, "<picture>x", "<picture>yz"):
        pixels = ()
        parts = [{"type": "text", "text": content.removeprefix("<picture>")}]
        if content.startswith("<picture>"):
            picture = noise_image(60, 60, seed=len(content))
            pixels = (processor.prepare_image(picture, content_key=content),)
            parts.insert(0, {"type": "image"})
        message = {"role": "user", "content": parts}
        rendered = processor.render_chat([message], media=pixels)
        prompts.append((tuple(rendered.token_ids), tuple(rendered.media), pixels))
    return str(path), prompts


class AnyUse(RuleBasedStateMachine):
    """Requests of every mode come and go, media too, and the role changes when it may."""

    overlaps = False

    def __init__(self) -> None:
        super().__init__()
        path, self.prompts = tiny_model()
        self.engine = Engine(
            EngineConfig(
                model=path, dtype="float32", block_size=4, num_kv_blocks=NUM_BLOCKS,
                num_media_rows=NUM_ROWS, max_num_seqs=3, max_batched_tokens=24, chunk_tokens=9,
                weights_policy=WeightsPolicy.RELEASE, overlap_steps=self.overlaps,
            )
        )  # fmt: skip
        self.engine.on_layer = lambda spans: None
        self.known: dict[str, Mode] = {}
        self.reserved: set[str] = set()
        self.leased: set[str] = set()
        self.filling: set[str] = set()
        self.count = 0

    @rule(
        prompt=st.integers(0, 3),
        mode=st.sampled_from(Mode),
        num_tokens=st.integers(1, 12),
        emitted=st.lists(st.integers(0, 3), min_size=1, max_size=3),
        priority=st.integers(0, 1),
    )
    def add(self, prompt, mode, num_tokens, emitted, priority):
        tokens, media, _pixels = self.prompts[prompt]
        self.count += 1
        request = GenerateRequest(
            request_id=f"r{self.count}",
            prompt_token_ids=tokens,
            media=media,
            sampling=SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True),
            choices=tuple(
                Choice(index=i, emitted_token_ids=(7,) * length) for i, length in enumerate(emitted)
            ),
            priority=priority,
        )
        try:
            self.engine.add(request, mode=mode)
        except InvalidRequest:
            return  # it must have changed nothing: the invariant looks
        self.known[request.request_id] = mode

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def abort(self, data):
        self.end(data.draw(st.sampled_from(sorted(self.known))))

    @rule(count=st.integers(1, 6))
    def step(self, count):
        for _ in range(count):
            self.take(self.engine.step())

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def commit(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.reserved)))
        self.reserved.discard(request_id)
        self.engine.commit_kv(request_id, FirstToken(token_id=9))

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def release(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.leased)))
        self.leased.discard(request_id)
        self.known.pop(request_id, None)
        self.engine.release_kv(request_id)

    @rule(prompt=st.integers(2, 3))
    def submit_media(self, prompt):
        self.engine.submit_media(self.prompts[prompt][2][0])

    @rule(prompt=st.integers(2, 3))
    def reserve_media(self, prompt):
        medium = self.prompts[prompt][2][0]
        rows = self.engine.reserve_media(medium.key, medium.num_tokens)
        if rows is not None and not rows.ready:
            self.filling.add(medium.key)

    @precondition(lambda self: self.filling)
    @rule(data=st.data(), fails=st.booleans())
    def end_filling(self, data, fails):
        key = data.draw(st.sampled_from(sorted(self.filling)))
        self.filling.discard(key)
        (self.engine.cancel_media if fails else self.engine.commit_media)(key)

    @rule(prompt=st.integers(2, 3), peer=st.sampled_from("ab"), acquires=st.booleans())
    def lend_media(self, prompt, peer, acquires):
        key = self.prompts[prompt][2][0].key
        (self.engine.acquire_media if acquires else self.engine.release_media)(key, peer)

    @precondition(lambda self: self.engine.is_drained())
    @rule(role=st.sampled_from(Role))
    def switch_role(self, role):
        self.engine.set_role(role)

    @invariant()
    def everything_is_accounted_for(self):
        assert self.engine.conservation_errors() == []

    def teardown(self):
        """Whatever happened: let it end, and all memory is free again."""
        for key in list(self.filling):
            self.engine.cancel_media(key)
        for request_id, mode in list(self.known.items()):
            if mode is not Mode.GENERATE or self.engine.role is not Role.ALL:
                self.end(request_id)
        if self.engine.role is Role.ALL:  # an encoder is there: every picture can come
            for _tokens, _media, pixels in self.prompts[2:]:
                for peer in "ab":
                    self.engine.release_media(pixels[0].key, peer)
                self.engine.submit_media(pixels[0])
        for _ in range(STEPS_TO_THE_END):
            if not self.engine.has_work():
                break
            self.take(self.engine.step())
        if self.engine.role is not Role.ALL:
            for request_id in list(self.known):
                self.end(request_id)
        else:
            assert self.known == {}, "a request never ended"
        assert self.engine.conservation_errors() == []
        if self.engine.role is Role.ALL:
            assert self.engine.is_drained()
        load = self.engine.load()
        assert load.num_free_kv_blocks == NUM_BLOCKS
        assert load.num_running == load.num_waiting == 0

    def end(self, request_id):
        self.engine.abort(request_id)
        self.known.pop(request_id, None)
        self.reserved.discard(request_id)
        self.leased.discard(request_id)

    def take(self, events):
        for event in events:
            match event:
                case KvReserved():
                    self.reserved.add(event.request_id)
                case PrefillDone():
                    self.leased.add(event.request_id)
                case TokensOut():
                    if event.request_id not in self.engine._requests:
                        self.known.pop(event.request_id, None)
                case MediaReady():
                    pass
                case _:
                    self.known.pop(getattr(event, "request_id", ""), None)


class AnyOverlappedUse(AnyUse):
    """The same while a step is always under way."""

    overlaps = True


TestAnyUse, TestAnyOverlappedUse = AnyUse.TestCase, AnyOverlappedUse.TestCase
TestAnyUse.settings = TestAnyOverlappedUse.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
