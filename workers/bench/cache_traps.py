"""This file is about pairs of questions that look alike: how many the cache takes for the same.

Each pair is a cache of one entry and one question. False hits count over the traps, hits over the
true paraphrases; topics that no guard was tuned on apart from the others.

    python workers/bench/cache_traps.py --out workers/bench/results
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from epidote_gateway.cache.meaning.guards.reading import read
from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.meaning.model_files import MINILM
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.meaning.trap_questions import QuestionPair, question_pairs
from epidote_gateway.cache.policy import GuardsSpec

THRESHOLDS = (0.70, 0.80, 0.85, 0.92)


def shares(pairs: Sequence[QuestionPair], served: Sequence[bool]) -> dict[str, Any]:
    """False hits over traps and hits over paraphrases, of all and by kind."""

    def share(kind: str, is_same: bool) -> float:
        chosen = [
            hit
            for pair, hit in zip(pairs, served, strict=True)
            if pair.is_same == is_same and kind in ("", pair.kind)
        ]
        return sum(chosen) / len(chosen)

    kinds = sorted({pair.kind for pair in pairs})
    return {
        kind or "all": {"false_hits": share(kind, False), "paraphrase_hits": share(kind, True)}
        for kind in ("", *kinds)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for cache_traps.json and .md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-topic", type=int, default=20)
    given = parser.parse_args()
    everything = question_pairs(Random(given.seed), per_topic=given.per_topic)
    model = SentenceModel(MINILM, max_tokens=256)
    guards = WordGuards(GuardsSpec())
    results: dict[str, Any] = {"seed": given.seed, "load": os.getloadavg()[0], "topics": {}}
    lines = [
        "| topics | threshold | traps served, cosine alone | with guards | paraphrases served,"
        " cosine alone | with guards |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, held_out in (("seen while writing guards", False), ("held out", True)):
        pairs = [pair for pair in everything if pair.held_out == held_out]
        cosines = (
            model.embed([pair.asked for pair in pairs])
            * model.embed([pair.cached for pair in pairs])
        ).sum(axis=1)
        read.cache_clear()
        begun = time.process_time()
        passes = np.array([guards.check(pair.asked, pair.cached) is None for pair in pairs])
        guard_us = 1e6 * (time.process_time() - begun) / len(pairs)
        found: dict[str, Any] = {"num_pairs": len(pairs), "guard_us": guard_us, "thresholds": {}}
        for threshold in THRESHOLDS:
            near = cosines >= threshold
            alone, guarded = shares(pairs, list(near)), shares(pairs, list(near & passes))
            found["thresholds"][str(threshold)] = {"alone": alone, "guarded": guarded}
            cells = [
                f"{100 * part['all'][key]:.1f} %"
                for key in ("false_hits", "paraphrase_hits")
                for part in (alone, guarded)
            ]
            lines.append(f"| {name} ({len(pairs)} pairs) | {threshold} | {' | '.join(cells)} |")
        results["topics"][name] = found
    print("\n".join(lines))
    print(f"# guards: {guard_us:.0f} us of CPU a pair, both read anew", file=sys.stderr)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "cache_traps.md").write_text("\n".join(lines) + "\n")
        (given.out / "cache_traps.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
