"""This package is about what questions mean: vectors, categories, guards, calibrated thresholds."""

from epidote_gateway.cache.meaning.sentence_meaning import SentenceMeaning

__all__ = ["SentenceMeaning"]
