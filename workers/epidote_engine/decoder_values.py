"""This file is about handing config.json's values to the decoder."""

from epidote_engine.config import ModelSpec
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.tensor_shapes import output_bias, qk_norm, qkv_bias


def decoder_config(spec: ModelSpec) -> DecoderConfig:
    """The decoder's configuration of a model that `config.load_model_spec` read."""
    text = spec.text
    sections = text["mrope_section"] or None
    return DecoderConfig(
        num_layers=int(text["num_hidden_layers"]),
        hidden=int(text["hidden_size"]),
        num_heads=int(text["num_attention_heads"]),
        num_kv_heads=int(text["num_key_value_heads"]),
        head_dim=int(text["head_dim"]),
        intermediate=int(text["intermediate_size"]),
        vocab=spec.vocab_size,
        rms_eps=float(text["rms_norm_eps"]),
        rope=text["rope"],
        max_positions=spec.max_positions,
        qk_norm=qk_norm(spec),
        attention_bias=qkv_bias(spec),
        output_bias=output_bias(spec),
        tie_embeddings=bool(text["tie_word_embeddings"]),
        mrope_sections=sections,
        # of the two towers' language models only Qwen3-VL's interleaves, whatever the file says
        mrope_interleaved=qk_norm(spec) and sections is not None,
        experts=text["experts"],
        num_deepstack=len(spec.vision.deepstack_layers) if spec.vision else 0,
    )
