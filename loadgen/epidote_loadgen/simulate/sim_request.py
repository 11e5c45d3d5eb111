"""This file is about one simulated request: what it carries, and when things happened to it."""

from epidote_core.modality import Modality


class SimRequest:
    """Mutable and slotted: a run makes hundreds of thousands of them.

    `image_tokens` has one entry an image. `block_ids` name the prompt's prefix blocks, `image_ids`
    the images' content, `answer_id` the answers that the response cache may share; None where
    the trace does not know.
    """

    __slots__ = (
        "answer_id",
        "arrival_s",
        "block_ids",
        "cached_tokens",
        "encoded",
        "finished_s",
        "first_token_s",
        "group",
        "image_ids",
        "image_tokens",
        "modality",
        "output_tokens",
        "prefilled",
        "prompt_tokens",
        "shards_left",
        "text_tokens",
    )

    def __init__(
        self,
        arrival_s: float,
        text_tokens: int,
        output_tokens: int,
        image_tokens: tuple[int, ...] = (),
        *,
        block_ids: tuple[int, ...] | None = None,
        image_ids: tuple[int, ...] | None = None,
        answer_id: int | None = None,
        modality: Modality | None = None,
    ) -> None:
        self.arrival_s = arrival_s
        self.text_tokens = text_tokens
        self.output_tokens = max(1, output_tokens)
        self.image_tokens = image_tokens
        self.block_ids = block_ids
        self.image_ids = image_ids
        self.answer_id = answer_id
        self.modality = modality or (Modality.IMAGE if image_tokens else Modality.TEXT)
        self.prompt_tokens = max(1, text_tokens + sum(image_tokens))
        self.group = ""
        self.shards_left = 0
        self.encoded = not image_tokens
        self.cached_tokens = 0
        self.prefilled = 0
        self.first_token_s = -1.0
        self.finished_s = -1.0

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        if self.output_tokens <= 1:
            return 0.0
        return (self.finished_s - self.first_token_s) / (self.output_tokens - 1)
