"""This file is about which weights a model needs, by plain name and shape; no torch.

Plain names carry no prefix: the language model's start at `embed_tokens`, `layers`, `norm`,
`lm_head`, the vision tower's at `patch_embed`, `blocks`, `merger`.
"""

from epidote_engine.config import ModelSpec
from epidote_engine.expert_spec import ExpertSpec
from epidote_engine.text_config import Architecture
from epidote_engine.vision.spec import Tower, VisionSpec

Shapes = dict[str, tuple[int, ...]]


def language_shapes(spec: ModelSpec) -> Shapes:
    """Every tensor of the language model; `lm_head.weight` only where it is not tied."""
    text = spec.text
    hidden, vocab = int(text["hidden_size"]), int(text["vocab_size"])
    heads, kv_heads = int(text["num_attention_heads"]), int(text["num_key_value_heads"])
    head_dim, inner = int(text["head_dim"]), int(text["intermediate_size"])
    experts: ExpertSpec | None = text["experts"]
    shapes: Shapes = {"embed_tokens.weight": (vocab, hidden), "norm.weight": (hidden,)}
    if not text["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    rows = {
        "q_proj": heads * head_dim,
        "k_proj": kv_heads * head_dim,
        "v_proj": kv_heads * head_dim,
    }
    for layer in range(int(text["num_hidden_layers"])):
        at = f"layers.{layer}"
        for name, size in rows.items():
            shapes[f"{at}.self_attn.{name}.weight"] = (size, hidden)
            if qkv_bias(spec):
                shapes[f"{at}.self_attn.{name}.bias"] = (size,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, heads * head_dim)
        if output_bias(spec):
            shapes[f"{at}.self_attn.o_proj.bias"] = (hidden,)
        if qk_norm(spec):
            shapes[f"{at}.self_attn.q_norm.weight"] = (head_dim,)
            shapes[f"{at}.self_attn.k_norm.weight"] = (head_dim,)
        if experts is not None and layer in experts.layers:
            shapes[f"{at}.mlp.gate.weight"] = (experts.num_experts, hidden)
            for number in range(experts.num_experts):
                shapes |= _swiglu(f"{at}.mlp.experts.{number}", hidden, experts.intermediate)
        else:
            shapes |= _swiglu(f"{at}.mlp", hidden, inner)
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def _swiglu(at: str, hidden: int, inner: int) -> Shapes:
    return {
        f"{at}.gate_proj.weight": (inner, hidden),
        f"{at}.up_proj.weight": (inner, hidden),
        f"{at}.down_proj.weight": (hidden, inner),
    }


def qk_norm(spec: ModelSpec) -> bool:
    """Whether queries and keys are normalised per head."""
    return spec.architecture.is_qwen3


def qkv_bias(spec: ModelSpec) -> bool:
    """Whether the query, key and value projections have biases."""
    if spec.architecture in (Architecture.QWEN2, Architecture.QWEN2_5_VL):
        return True
    return bool(spec.text.get("attention_bias"))


def output_bias(spec: ModelSpec) -> bool:
    """Whether attention's output projection has a bias: never in Qwen2's family."""
    if spec.architecture in (Architecture.QWEN2, Architecture.QWEN2_5_VL):
        return False
    return bool(spec.text.get("attention_bias"))


def vision_shapes(vision: VisionSpec) -> Shapes:
    """Every tensor of the vision tower."""
    hidden, inner = vision.hidden, vision.intermediate
    cube = (vision.temporal_patch, vision.patch, vision.patch)
    shapes: Shapes = {"patch_embed.proj.weight": (hidden, vision.channels, *cube)}
    group = hidden * vision.merge**2
    for layer in range(vision.num_layers):
        at = f"blocks.{layer}"
        shapes |= _linear(f"{at}.attn.qkv", hidden, 3 * hidden)
        shapes |= _linear(f"{at}.attn.proj", hidden, hidden)
        for norm in ("norm1", "norm2"):
            shapes[f"{at}.{norm}.weight"] = (hidden,)
            if vision.tower is Tower.QWEN3:
                shapes[f"{at}.{norm}.bias"] = (hidden,)
        if vision.tower is Tower.QWEN2_5:
            shapes |= _linear(f"{at}.mlp.gate_proj", hidden, inner)
            shapes |= _linear(f"{at}.mlp.up_proj", hidden, inner)
            shapes |= _linear(f"{at}.mlp.down_proj", inner, hidden)
        else:
            shapes |= _linear(f"{at}.mlp.linear_fc1", hidden, inner)
            shapes |= _linear(f"{at}.mlp.linear_fc2", inner, hidden)
    if vision.tower is Tower.QWEN2_5:
        shapes["merger.ln_q.weight"] = (hidden,)
        shapes |= _linear("merger.mlp.0", group, group)
        shapes |= _linear("merger.mlp.2", group, vision.out_hidden)
        return shapes
    shapes["patch_embed.proj.bias"] = (hidden,)
    shapes["pos_embed.weight"] = (vision.num_positions, hidden)
    mergers = [("merger", hidden)]
    mergers += [(f"deepstack_merger_list.{i}", group) for i in range(len(vision.deepstack_layers))]
    for at, normed in mergers:
        shapes |= {f"{at}.norm.weight": (normed,), f"{at}.norm.bias": (normed,)}
        shapes |= _linear(f"{at}.linear_fc1", group, group)
        shapes |= _linear(f"{at}.linear_fc2", group, vision.out_hidden)
    return shapes


def _linear(name: str, size_in: int, size_out: int) -> Shapes:
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}
