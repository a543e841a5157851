"""Every causal language model of the installed transformers, tiny: the rows of the tables of architectures."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 97
# Under all the names that configurations use
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "lru_width", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "linear_num_value_heads", "num_local_experts", "num_experts"), 4),
    **dict.fromkeys(("n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "linear_num_key_heads", "mamba_expand"), 2),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "mamba_d_state", "ssm_state_size", "state_size", "rotary_dim"), 8),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_d_head"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups"), 1),
    "mamba_d_ssm": 64,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LATENT = {"num_key_value_heads": 4, "head_dim": None}  # multi-head latent attention: as many keys as queries
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_DEEPSEEK = {**_LATENT, "first_k_dense_replace": 1}
SPECIAL: dict[str, dict[str, Any]] = {
    "axk1": _DEEPSEEK,
    "axk2": _DEEPSEEK,
    "bailing_hybrid": {**_DEEPSEEK, **_HYBRID},
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "dots1": {"first_k_dense_replace": 1, "n_shared_experts": 1},
    "dots3_note_text": _DEEPSEEK,
    "falcon": {"head_dim": None},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCABULARY},
    "gemma4_text": {
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
    },
    "gemma4_unified_text": {"num_kv_shared_layers": 0},
    "glm4_moe_lite": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**_DEEPSEEK, **_HYBRID},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {
        "num_key_value_heads": 4,
        "head_dim": 8,
        "num_layers": 2,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 24,
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "minicpm3": _LATENT,
    "prophetnet": {"num_hidden_layers": None},
    "qwen3_5_moe_text": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "qwen4_exp_text": {**_HYBRID, "indexer_n_heads": 2, "indexer_head_dim": 8, "indexer_num_heads": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 16},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlnet": {"max_position_embeddings": None},
    "xlstm": {"head_dim": None, "v_head_dim": None, "qk_head_dim": None},
    "youtu": _LATENT,
    "zamba": {"num_hidden_layers": 6, "layer_types": 2 * ["linear_attention", "linear_attention", "hybrid"]},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": 2 * ["linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
    },
    "zaya": {"num_experts_per_tok": 1},
}
# Other modalities, or no sizes that make them small
_NOT_TINY = {
    *("blt", "dbrx", "dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant", "gemma4_unified"),
    *("gemma4_unified_assistant", "git", "got_ocr2", "llama4", "mllama", "moss_transcribe_diarize", "musicgen"),
    *("musicgen_melody", "phi4_multimodal", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "qwen4_exp_text", "roc_bert"),
    *("xlstm",),
}
NAMES = tuple(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in _NOT_TINY)
# These read in both directions unless told otherwise, or cannot be called on tokens alone.
REFUSED = {
    *("bert", "bert-generation", "big_bird", "camembert", "cpmant", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "prophetnet", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roformer", "rwkv"),
    *("xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod"),
}
_LARGEST = 3_000_000


def tiny_config(name: str, **more: Any) -> Any:
    """Return a configuration of this model type with two layers of 32, and ``more``."""
    of_type = CONFIG_MAPPING[name]
    known = of_type().to_dict().keys() | of_type.attribute_map.keys()
    sizes = {key: value for key, value in SIZES.items() if key in known} | SPECIAL.get(name, {}) | more
    if "vocab_size_per_layer_input" in sizes:
        sizes["vocab_size_per_layer_input"] = sizes["vocab_size"]
    return of_type(**{key: value for key, value in sizes.items() if value is not None})


def with_dropout(config: Any) -> Any:
    """Set every probability of dropping something to a half, and the noise of routers."""
    for key, value in config.to_dict().items():
        noisy = "drop" in key or "pdrop" in key or "jitter" in key
        if (
            noisy
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
            and config.model_type != "diffllama"
        ):
            setattr(config, key, 0.5)
    return config


def tiny_network(config: Any) -> Any:
    """Return a random model; none larger than three million parameters."""
    with torch.device("meta"):
        size = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_config(config).parameters())
    assert size < _LARGEST, f"{size:,} parameters"
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)
