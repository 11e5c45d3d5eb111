"""This file is about questions on generated pictures, whose right answers are known.

With several turns, requests are conversations: the history holds the right answers, not the
server's, so that a request depends on the seed alone.
"""

from dataclasses import dataclass
from random import Random

from epidote_core.modality import Modality
from epidote_loadgen.questions import MAX_SCENES, Question, ask_any
from epidote_loadgen.records import PlannedRequest, RequestAttributes, Slot
from epidote_loadgen.workload.body import Message, user_message
from epidote_loadgen.workload.distributions import Distribution
from epidote_loadgen.workload.maker import ClassTraits, with_system
from epidote_loadgen.workload.picture_source import PictureSource


@dataclass(frozen=True, kw_only=True)
class QuestionClass:
    """Pictures and a question about them; without pictures a sum or a fact.

    Conversations of `num_turns` run `num_sessions` at a time: turn k of a session is followed by
    turn k of the other sessions before its turn k + 1.
    """

    traits: ClassTraits
    num_images: Distribution
    pictures: PictureSource
    num_turns: int = 1
    num_sessions: int = 1
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if self.num_turns < 1 or self.num_sessions < 1:
            raise ValueError("turns and sessions must be >= 1")
        if self.num_images.most is None or self.num_images.most > MAX_SCENES:
            raise ValueError(f"questions are about at most {MAX_SCENES} pictures at once")

    def place(self, item: int) -> tuple[int, int]:
        """(session, turn) of an item."""
        lap, within = divmod(item, self.num_sessions * self.num_turns)
        turn, seat = divmod(within, self.num_sessions)
        return lap * self.num_sessions + seat, turn

    def request(self, slot: Slot) -> PlannedRequest:
        traits = self.traits
        session, turn = self.place(slot.item)
        rng = traits.rng(session, "images")
        ids = self.pictures.draw_ids(self.num_images.sample(rng), session, rng)
        images = [self.pictures.picture(image_id) for image_id in ids]
        questions = self._questions(session, turn, ids)
        messages: list[Message] = []
        for place, question in enumerate(questions):
            urls = [image.data_url for image in images] if place == 0 else []
            messages.append(user_message(urls, question.text))
            if place < turn:
                messages.append({"role": "assistant", "content": question.answer})
        prefix_id, prefix = traits.drawn_prefix(session)
        attributes = RequestAttributes(
            modality=Modality.IMAGE if images else Modality.TEXT,
            num_images=len(images),
            tenant=traits.tenant(session),
            category=traits.category or str(questions[-1].type),
            max_output_tokens=self.max_tokens,
            prefix_id=prefix_id,
            image_ids=tuple(ids),
            session_id=f"{traits.name}-{session}" if self.num_turns > 1 else "",
            turn=turn,
        )
        return traits.planned(
            slot,
            with_system(prefix, messages),
            attributes,
            max_tokens=self.max_tokens,
            expected_answer=questions[-1].answer,
        )

    def _questions(self, session: int, last_turn: int, image_ids: list[str]) -> list[Question]:
        rng: Random = self.traits.rng(session, "questions")
        scenes = [self.pictures.scene(image_id) for image_id in image_ids]
        return [ask_any(scenes, rng) for _ in range(last_turn + 1)]
