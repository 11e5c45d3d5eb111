"""This file is about a worker proving, on tiny work, that it can do what its role asks."""

from collections.abc import Callable

from epidote_core.errors import EpidoteError
from epidote_core.generation import GenerateRequest, MediaKind, MediaPixels
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.events import TokensOut
from epidote_engine.model_files import InvalidModel
from epidote_workers.encode_stage import EncodeStage
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.parts import Parts

TIMEOUT_S = 30.0  # the first step after loading compiles and faults pages in
TINY_PROMPT = (0, 1, 2)

TinyPixels = Callable[[str], MediaPixels | None]  # by key; None: a model without an encoder


class SelfCheckFailed(EpidoteError):
    """The worker can't do what its role asks."""


def tiny_pixels_of(model: str) -> TinyPixels:
    """One grey picture that becomes one embedding, in the model's own grid."""
    from epidote_engine.config import load_model_spec

    try:
        vision = load_model_spec(model).vision
    except InvalidModel:
        vision = None
    if vision is None:
        return lambda key: None
    return lambda key: tiny_picture(key, vision.grid_pixels, vision.merge)


def tiny_picture(key: str, side: int, merge: int) -> MediaPixels:
    return MediaPixels(
        key=key,
        kind=MediaKind.IMAGE,
        num_frames=1,
        height=side,
        width=side,
        grid_thw=(1, merge, merge),
        num_tokens=1,
        data=bytes([127]) * (side * side * 3),
    )


class SelfCheck:
    """Runs beside the gate, while the worker is not routable."""

    def __init__(self, parts: Parts, encoder: EncodeStage, pixels: TinyPixels) -> None:
        self._parts, self._encoder, self._pixels = parts, encoder, pixels

    async def run(self, role: Role) -> None:
        """Encode one tiny picture and generate one token, as far as the role does.

        Raises:
            SelfCheckFailed: saying what did not work.
        """
        try:
            if role.needs_language_weights:
                await self._one_token()
            if role.needs_encoder_weights:
                await self._one_picture(role)
        except TimeoutError as error:
            raise SelfCheckFailed(f"no answer as {role} within {TIMEOUT_S:g} s") from error

    async def _one_token(self) -> None:
        request = GenerateRequest(
            request_id=self._parts.owner("check"),
            prompt_token_ids=TINY_PROMPT,
            sampling=SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True),
            cache_salt="self-check",
        )
        inbox = self._parts.inboxes.open(request.request_id)
        try:
            self._parts.engine.post_or(lambda engine: engine.add(request), inbox.fail)
            items = await inbox.take(TIMEOUT_S)
            if not any(isinstance(item, TokensOut) for item in items):
                raise SelfCheckFailed(f"no token, but {type(items[0]).__name__}")
        finally:
            self._parts.inboxes.close(request.request_id)
            self._parts.engine.post(lambda engine: engine.abort(request.request_id))

    async def _one_picture(self, role: Role) -> None:
        key = self._parts.owner(f"check/{self._parts.worker_id}")
        pixels = self._pixels(key)
        if pixels is None:
            if role is Role.ENCODE:
                raise SelfCheckFailed("the model has no encoder")
            return

        def look(engine: EngineLike) -> bool | None:
            return True if engine.acquire_media(key, key) is not None else None

        failures: list[Exception] = []
        self._parts.engine.post_or(lambda engine: engine.submit_media(pixels), failures.append)
        try:
            await self._parts.engine.until(look, TIMEOUT_S)
        except TimeoutError:
            if failures:
                raise SelfCheckFailed(f"no embedding: {failures[0]}") from failures[0]
            raise
        finally:
            self._parts.engine.post(lambda engine: engine.release_media(key, key))
