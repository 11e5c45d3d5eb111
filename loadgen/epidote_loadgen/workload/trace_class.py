"""This file is about the requests of a replayed trace: its sizes, in text and pictures of ours."""

from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_loadgen.records import PlannedRequest, RequestAttributes, Slot
from epidote_loadgen.traces.trace_row import TraceRow
from epidote_loadgen.traces.trace_window import Trace
from epidote_loadgen.workload.body import Api, user_message
from epidote_loadgen.workload.maker import ClassTraits
from epidote_loadgen.workload.picture_source import Picture, PictureSource
from epidote_loadgen.workload.resolution import size_of_tokens
from epidote_loadgen.workload.text import first_words, passage, shared_passage, token_ids


@dataclass(frozen=True, kw_only=True)
class TraceClass:
    """Row `item` as a request of the same number of tokens in, tokens out, and images.

    A prefix block of the trace becomes one passage, so that equal ids are equal text. An image of
    n tokens gets about n x `side_px`² pixels; what its grid can't hold is added to the text, so
    the prompt's total stays. An image of unknown size is drawn from the mix.
    """

    traits: ClassTraits
    trace: Trace
    pictures: PictureSource
    exact: bool = True
    side_px: int = 28
    template_tokens: int = 0
    as_ids: bool = False

    def request(self, slot: Slot) -> PlannedRequest:
        row, traits = self.trace.rows[slot.item], self.traits
        images, image_tokens = self._images(row, slot.item)
        max_tokens = max(1, row.output_tokens)
        attributes = RequestAttributes(
            modality=Modality.IMAGE if images else Modality.TEXT,
            num_images=len(row.image_tokens),
            tenant=row.tenant or traits.tenant(slot.item),
            category=row.category or traits.category,
            prompt_tokens=row.prompt_tokens,
            max_output_tokens=max_tokens,
            prefix_id=str(row.block_ids[0]) if row.block_ids else "",
            image_ids=tuple(image.image_id for image in images),
            session_id=row.session_id,
            turn=row.turn,
        )
        num_words = max(1, row.prompt_tokens - image_tokens - self.template_tokens)
        key = f"{traits.seed}/{traits.name}/{slot.item}/text"
        if self.as_ids:
            prompt: list[int] | str | list[dict[str, object]] = token_ids(
                max(1, row.text_tokens), key
            )
        elif row.messages:
            prompt = [dict(message) for message in row.messages]
        else:
            text = self._text(row, num_words, key)
            if traits.style.api is Api.COMPLETIONS:
                prompt = text
            else:
                prompt = [dict(user_message([image.data_url for image in images], text))]
        return traits.planned(slot, prompt, attributes, max_tokens=max_tokens, exact=self.exact)

    def _text(self, row: TraceRow, num_words: int, key: str) -> str:
        if not row.block_ids:
            return passage(num_words, key)
        blocks = "".join(
            shared_passage(row.block_tokens, f"{self.traits.seed}/block/{block}")
            for block in row.block_ids
        )
        missing = num_words - row.block_tokens * len(row.block_ids)
        if missing > 0:
            return blocks + passage(missing, key)
        return first_words(blocks, num_words)

    def _images(self, row: TraceRow, item: int) -> tuple[list[Picture], int]:
        """The pictures, and how many tokens they are worth together."""
        if row.messages:
            return [], 0
        ids = row.image_ids
        if len(ids) != len(row.image_tokens):
            rng = self.traits.rng(item, "images")
            ids = tuple(self.pictures.draw_ids(len(row.image_tokens), item, rng))
        images, total = [], 0
        for image_id, wanted in zip(ids, row.image_tokens, strict=True):
            size_px, num_tokens = None, 0
            if wanted:
                size_px, num_tokens = size_of_tokens(wanted, side_px=self.side_px)
            images.append(self.pictures.picture(image_id, size_px))
            total += num_tokens
        return images, total
