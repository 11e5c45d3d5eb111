"""Prompt processors of tiny models, one of a kind for all tests of the engine."""

import pytest

from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model


def processor_of(architecture, tmp_path_factory):
    directory = tmp_path_factory.mktemp("processing") / "tiny"
    save_tiny_model(directory, architecture, seed=11)
    return PromptProcessor.from_model(str(directory))


@pytest.fixture(scope="session")
def qwen2_5(tmp_path_factory):
    return processor_of(Architecture.QWEN2_5_VL, tmp_path_factory)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory):
    return processor_of(Architecture.QWEN3_VL, tmp_path_factory)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return processor_of(Architecture.LLAMA, tmp_path_factory)
