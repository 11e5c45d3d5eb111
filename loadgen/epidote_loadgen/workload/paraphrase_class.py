"""This file is about requests that try a response cache: paraphrases, and traps."""

from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_loadgen.records import PlannedRequest, RequestAttributes, Slot
from epidote_loadgen.workload.body import user_message
from epidote_loadgen.workload.maker import ClassTraits, with_system
from epidote_loadgen.workload.paraphrases import KINDS, group
from epidote_loadgen.workload.picture_source import PictureSource
from epidote_loadgen.workload.zipf import Zipf


@dataclass(frozen=True, kw_only=True)
class ParaphraseClass:
    """Groups drawn by `reuse`; a share `trap_ratio` of the requests are traps of their group."""

    traits: ClassTraits
    reuse: Zipf
    pictures: PictureSource
    kinds: tuple[str, ...] = tuple(KINDS)
    trap_ratio: float = 0.2
    max_tokens: int = 32

    def request(self, slot: Slot) -> PlannedRequest:
        traits = self.traits
        rng = traits.rng(slot.item, "paraphrase")
        drawn = group(self.reuse.sample(rng), traits.seed, self.kinds, self.pictures)
        is_trap = bool(drawn.traps) and rng.random() < self.trap_ratio
        asked = rng.choice(drawn.traps if is_trap else drawn.ways)
        images = [self.pictures.picture(asked.image_id)] if asked.image_id else []
        prefix_id, prefix = traits.drawn_prefix(slot.item)
        attributes = RequestAttributes(
            modality=Modality.IMAGE if images else Modality.TEXT,
            num_images=len(images),
            tenant=traits.tenant(slot.item),
            category=traits.category or drawn.category,
            max_output_tokens=self.max_tokens,
            prefix_id=prefix_id,
            image_ids=tuple(image.image_id for image in images),
            group_id=drawn.group_id,
            is_trap=is_trap,
        )
        message = user_message([image.data_url for image in images], asked.text)
        return traits.planned(
            slot,
            with_system(prefix, [message]),
            attributes,
            max_tokens=self.max_tokens,
            expected_answer=asked.answer,
        )
