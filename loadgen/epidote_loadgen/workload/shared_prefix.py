"""This file is about prompt prefixes that requests share: system prompts, reused by Zipf's law."""

from dataclasses import dataclass
from random import Random

from epidote_loadgen.workload.text import shared_passage
from epidote_loadgen.workload.zipf import Zipf


@dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """`reuse.count` different system prompts of `num_tokens` each; apart from image reuse."""

    seed: int
    name: str
    num_tokens: int
    reuse: Zipf

    def draw(self, rng: Random) -> tuple[str, str]:
        """(id, text) of one request's prefix. Mutates `rng` only."""
        prefix_id = f"{self.name}-prefix-{self.reuse.sample(rng)}"
        return prefix_id, shared_passage(self.num_tokens, f"{self.seed}/{prefix_id}")
