"""This file is about requests of given lengths: so many tokens in, so many out, so many images."""

from dataclasses import dataclass

from epidote_core.modality import Modality
from epidote_loadgen.records import PlannedRequest, RequestAttributes, Slot
from epidote_loadgen.workload.body import Api, user_message
from epidote_loadgen.workload.distributions import Distribution
from epidote_loadgen.workload.maker import ClassTraits, with_system
from epidote_loadgen.workload.picture_source import PictureSource
from epidote_loadgen.workload.text import passage, token_ids


@dataclass(frozen=True, kw_only=True)
class LengthClass:
    """Filler text of `prompt_tokens`, `output_tokens` asked for and, if `exact`, insisted on.

    `template_tokens` is what the server's chat template adds; it is taken off the filler, so that
    the server counts `prompt_tokens`. `as_ids` sends token ids (completions only): exact anywhere.
    """

    traits: ClassTraits
    prompt_tokens: Distribution
    output_tokens: Distribution
    num_images: Distribution
    pictures: PictureSource | None = None
    exact: bool = True
    template_tokens: int = 0
    as_ids: bool = False

    def request(self, slot: Slot) -> PlannedRequest:
        item, traits = slot.item, self.traits
        num_tokens = max(1, self.prompt_tokens.sample(traits.rng(item, "prompt")))
        max_tokens = max(1, self.output_tokens.sample(traits.rng(item, "output")))
        rng = traits.rng(item, "images")
        num_images = self.num_images.sample(rng)
        images = []
        if num_images and self.pictures is not None:
            ids = self.pictures.draw_ids(num_images, item, rng)
            images = [self.pictures.picture(image_id) for image_id in ids]
        prefix_id, prefix = traits.drawn_prefix(item)
        own = max(1, num_tokens - self.template_tokens)
        key = f"{traits.seed}/{traits.name}/{item}/text"
        attributes = RequestAttributes(
            modality=Modality.IMAGE if images else Modality.TEXT,
            num_images=len(images),
            tenant=traits.tenant(item),
            category=traits.category,
            prompt_tokens=num_tokens + (traits.prefix.num_tokens if traits.prefix else 0),
            max_output_tokens=max_tokens,
            prefix_id=prefix_id,
            image_ids=tuple(image.image_id for image in images),
        )
        if self.as_ids:
            return traits.planned(
                slot,
                token_ids(num_tokens, key),
                attributes,
                max_tokens=max_tokens,
                exact=self.exact,
            )
        text = passage(own, key)
        if traits.style.api is Api.COMPLETIONS:
            return traits.planned(
                slot, prefix + text, attributes, max_tokens=max_tokens, exact=self.exact
            )
        messages = with_system(prefix, [user_message([i.data_url for i in images], text)])
        return traits.planned(slot, messages, attributes, max_tokens=max_tokens, exact=self.exact)
