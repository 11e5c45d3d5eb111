"""The model run on padded batches: the arithmetic of transformers, without its loop over pictures.

`train.py` checks at its start that this agrees with `Qwen3VLForConditionalGeneration` itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lessons import DENSE_CLASSES, PATCHES, Batch, Pixels
from recipe import MAX_TOKENS, MERGE, PATCH_PX, PIXEL_MEAN, PIXEL_STD
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)


class Tower:
    """Runs `model`'s vision part on pictures padded to PATCHES, and its text part on rows."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        self.model = model
        self.visual = model.model.visual
        self._grids: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    def see(self, pictures: Sequence[Pixels]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Merged tokens, the deep-stack layers' merged tokens, and which of them are real.

        Each of the first is [pictures, MAX_TOKENS, width]; the last [pictures, MAX_TOKENS] bool.
        """
        visual = self.visual
        pixels = torch.from_numpy(np.stack([picture.patches for picture in pictures]))
        hidden = (pixels.to(self.device).float() / 255 - PIXEL_MEAN) / PIXEL_STD
        # both frames of a still picture are equal, so their two kernels add up
        kernel = visual.patch_embed.proj.weight.sum(2).flatten(1)
        hidden = functional.linear(hidden, kernel, visual.patch_embed.proj.bias)
        looked_up = [self._grid(picture.grid) for picture in pictures]
        taps, weights, places = (torch.stack(part) for part in zip(*looked_up, strict=True))
        hidden = hidden + (visual.pos_embed(taps) * weights[..., None]).sum(-2)
        count, width = len(pictures), hidden.shape[-1]
        cos, sin = visual.rotary_pos_emb(hidden, places.flatten(0, 1))
        cos, sin = cos.view(count, PATCHES, -1), sin.view(count, PATCHES, -1)
        tokens = torch.tensor([picture.num_tokens for picture in pictures], device=self.device)
        real = torch.arange(MAX_TOKENS, device=self.device) < tokens[:, None]
        mask = real.repeat_interleave(MERGE**2, 1)[:, None, None, :]
        deep = []
        for number, block in enumerate(visual.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(hidden)).view(
                count, PATCHES, 3, attention.num_heads, -1
            )
            query, key, value = qkv.unbind(2)
            query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
            mixed = functional.scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
            )
            hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(count, PATCHES, width))
            hidden = hidden + block.mlp(block.norm2(hidden))
            if number in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[len(deep)]
                deep.append(merger(hidden.flatten(0, 1)).view(count, MAX_TOKENS, -1))
        merged = visual.merger(hidden.flatten(0, 1)).view(count, MAX_TOKENS, -1)
        return merged, deep, real

    def read(
        self, batch: Batch, seen: tuple[Tensor, list[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the tokens before each label, [labels, vocabulary], and the labels."""
        ids = torch.from_numpy(batch.ids).to(self.device)
        branch = torch.from_numpy(batch.branch).to(self.device)
        labels = torch.from_numpy(batch.labels).to(self.device)
        text = self.model.model.language_model
        embedded = text.embed_tokens(ids)
        extra: dict[str, Any] = {}
        if seen is not None:
            merged, deep, real = seen
            mask = ids == self.model.config.image_token_id
            embedded = embedded.masked_scatter(mask[..., None], merged[real].to(embedded.dtype))
            extra = {
                "visual_pos_masks": mask,
                "deepstack_visual_embeds": [layer[real] for layer in deep],
            }
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        visible = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
        hidden = text(
            inputs_embeds=embedded,
            position_ids=torch.from_numpy(batch.positions).to(self.device),
            attention_mask=(causal & visible)[:, None],
            use_cache=False,
            **extra,
        ).last_hidden_state
        asked, answered = hidden[:, :-1], labels[:, 1:]
        wanted = answered >= 0
        return self.model.lm_head(asked[wanted]), answered[wanted]

    def _grid(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Position taps, their weights and rotary places for a grid, padded to PATCHES."""
        if grid not in self._grids:
            thw = torch.tensor([[1, *grid]])
            taps, weights = get_vision_interpolation_indices_and_weights(
                thw,
                num_grid_per_side=self.visual.num_grid_per_side,
                mode=self.visual.interpolation_mode,
                align_corners=self.visual.interpolation_align_corners,
                spatial_merge_size=MERGE,
                kwargs={},
            )
            places = get_vision_position_ids(thw, MERGE, kwargs={})
            missing = PATCHES - grid[0] * grid[1]
            self._grids[grid] = (
                functional.pad(taps, (0, 0, 0, missing)).to(self.device),
                functional.pad(weights, (0, 0, 0, missing)).to(self.device),
                functional.pad(places, (0, 0, 0, missing)).to(self.device),
            )
        return self._grids[grid]


class DenseHeads(nn.Module):
    """Reads colour, form, size and place off each merged token; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reader = nn.Linear(width, sum(DENSE_CLASSES.values()))

    def forward(self, merged: Tensor, pictures: Sequence[Pixels]) -> tuple[Tensor, float]:
        """Mean cross-entropy, and the share of tokens read without a mistake, in [0, 1]."""
        targets = torch.from_numpy(np.stack([picture.dense for picture in pictures]))
        real = (targets[..., 0] >= 0).to(merged.device)
        wanted = targets.to(merged.device)[real]
        scores = self.reader(merged[real]).float()
        loss = scores.new_zeros(())
        right = torch.ones(len(wanted), dtype=torch.bool, device=merged.device)
        # most tokens hold nothing: they count a quarter
        empty = wanted[:, 0] == DENSE_CLASSES["colour"] - 1
        weight = torch.where(empty, 0.25, 1.0)
        for column, part in enumerate(scores.split(list(DENSE_CLASSES.values()), -1)):
            each = functional.cross_entropy(part, wanted[:, column], reduction="none")
            loss = loss + (each * weight).sum() / weight.sum()
            right &= part.argmax(-1) == wanted[:, column]
        return loss, right.float().mean().item()


def as_processor_output(pictures: Sequence[Pixels]) -> dict[str, Tensor]:
    """The same pictures in the form `Qwen3VLForConditionalGeneration` takes."""
    rows = []
    for picture in pictures:
        patches = torch.from_numpy(picture.patches[: picture.grid[0] * picture.grid[1]]).float()
        patches = (patches / 255 - PIXEL_MEAN) / PIXEL_STD
        patches = patches.view(-1, 3, 1, PATCH_PX * PATCH_PX).expand(-1, -1, 2, -1)
        rows.append(patches.reshape(len(patches), -1))
    return {
        "pixel_values": torch.cat(rows),
        "image_grid_thw": torch.tensor([[1, *picture.grid] for picture in pictures]),
    }
