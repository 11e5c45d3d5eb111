"""This file is about a Llama-architecture GGUF file becoming a Hugging Face directory.

Weights are dequantised to bfloat16. Only what SmolLM2 needs: a byte-level BPE vocabulary, tied
embeddings, no rotary scaling.
Source: the GGUF specification (ggml's docs/gguf.md), llama.cpp's convert_hf_to_gguf.py for names
and for the order of rotary rows, which this file undoes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL, _USER_DEFINED = 3, 4  # GGUF's token types


def convert(source: Path, target: Path) -> None:
    """Write `source`'s model, tokenizer and chat template to the directory `target`.

    Raises:
        ValueError: the file is of another architecture or vocabulary.
    """
    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kind, vocabulary = fields["general.architecture"], fields["tokenizer.ggml.model"]
    if (kind, vocabulary) != ("llama", "gpt2"):
        raise ValueError(f"{source.name}: {kind} with {vocabulary} vocabulary is not supported")
    target.mkdir(parents=True)
    heads = int(fields["llama.attention.head_count"])
    kv_heads = int(fields["llama.attention.head_count_kv"])
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
        if ".attn_q." in tensor.name:
            values = _halves(values, heads)
        elif ".attn_k." in tensor.name:
            values = _halves(values, kv_heads)
        weights[_name(tensor.name)] = values.to(torch.bfloat16).contiguous()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    _tokenizer(fields).save(str(target / "tokenizer.json"))
    (target / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], "utf-8")
    for name, content in _settings(fields).items():
        (target / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _halves(weight: Tensor, heads: int) -> Tensor:
    """GGUF interleaves the two rotary halves of each head's rows; put them one after the other."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _name(gguf_name: str) -> str:
    if gguf_name in _TENSORS:
        return _TENSORS[gguf_name]
    block, layer, part, kind = gguf_name.split(".")
    if block != "blk":
        raise ValueError(f"tensor {gguf_name!r} is not known")
    return f"model.layers.{layer}.{_LAYER_TENSORS[part]}.{kind}"


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """The vocabulary with SmolLM's own splitting: single digits, then GPT-2's pattern."""
    if fields["tokenizer.ggml.pre"] != "smollm":
        raise ValueError(f"pre-tokenizer {fields['tokenizer.ggml.pre']!r} is not known")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    return tokenizer


def _settings(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name → content of the JSON files."""
    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        name: int(fields[f"tokenizer.ggml.{field}_token_id"])
        for name, field in (
            ("bos", "bos"),
            ("eos", "eos"),
            ("unk", "unknown"),
            ("pad", "padding"),
        )
    }
    hidden, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    ids = {f"{name}_token_id": special[name] for name in ("bos", "eos", "pad")}
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": fields["llama.feed_forward_length"],
            "num_hidden_layers": fields["llama.block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": fields["llama.attention.head_count_kv"],
            "head_dim": hidden // heads,
            "max_position_embeddings": fields["llama.context_length"],
            "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": fields["llama.rope.freq_base"],
            },
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "vocab_size": len(tokens),
            **ids,
        },
        "generation_config.json": ids,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": fields["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            **{f"{name}_token": tokens[index] for name, index in special.items()},
        },
    }
