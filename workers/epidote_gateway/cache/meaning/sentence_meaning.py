"""This file is about the judges of a policy: sentence model, classifier and guards."""

import asyncio
from pathlib import Path

from epidote_gateway.cache.meaning.classifier import ExemplarClassifier
from epidote_gateway.cache.meaning.embedder import BatchingEmbedder
from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.meaning.projection import Projection
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.policy import CachePolicy, CategorySpec, EmbedderSpec
from epidote_gateway.cache.protocols import Embedder

EXEMPLARS_AT_ONCE = 16  # so that questions get their turn between them


def load_embedder(spec: EmbedderSpec) -> BatchingEmbedder:
    """Reads files and compiles: half a second of a thread's time.

    Raises:
        NoSentenceModel, BadProjection.
    """
    model = SentenceModel(spec.model, max_tokens=spec.max_tokens)
    if not spec.projection:
        return BatchingEmbedder(model)
    return BatchingEmbedder(model, Projection.load(Path(spec.projection), model=model.name))


class SentenceMeaning:
    """A `protocols.Meaning`. One embedder is kept, until a policy asks for another one."""

    def __init__(self) -> None:
        self._loaded: tuple[EmbedderSpec, float, BatchingEmbedder] | None = None
        self._loading = asyncio.Lock()

    async def embedder(self, policy: CachePolicy) -> Embedder:
        """Raises `NoSentenceModel` or `BadProjection`; the one before stays in use then."""
        spec = policy.embedder.model_copy(update={"precision": EmbedderSpec().precision})
        async with self._loading:
            changed_at = _changed_at(spec.projection)
            if self._loaded is None or self._loaded[:2] != (spec, changed_at):
                loaded = await asyncio.to_thread(load_embedder, spec)
                self._loaded = spec, changed_at, loaded
            return self._loaded[2]

    async def classifier(self, policy: CachePolicy, embedder: Embedder) -> ExemplarClassifier:
        exemplars = {}
        for category in policy.categories:
            rows = []
            for start in range(0, len(category.exemplars), EXEMPLARS_AT_ONCE):
                texts = category.exemplars[start : start + EXEMPLARS_AT_ONCE]
                rows += list(await embedder.embed(texts))
            if rows:
                exemplars[category.name] = rows
        return ExemplarClassifier(exemplars, policy.classifier)

    def guards(self, policy: CachePolicy, category: CategorySpec) -> WordGuards:
        return WordGuards(policy.guards, category.guards)


def _changed_at(path: str) -> float:
    """When the file was written; a projection may be calibrated again under the same name."""
    try:
        return Path(path).stat().st_mtime if path else 0.0
    except OSError:
        return 0.0  # loading it will say what is wrong
