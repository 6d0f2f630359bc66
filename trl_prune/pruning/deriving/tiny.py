"""Tiny configs of any model type: the sizes shrink, what decides a block's structure stays."""

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from trl_prune.checkpoints import model_class


NUM_LAYERS = 6
VOCABULARY = 259
# Sizes by the key that transformers' configs share; a type's own key comes from its attribute_map.
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": NUM_LAYERS,
    "max_position_embeddings": 1024,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    # mixtures of experts
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 40,
    "shared_expert_intermediate_size": 40,
    "shared_experts_intermediate_size": 40,
    "shared_intermediate_size": 40,
    "intermediate_size_mlp": 56,
    "expert_ffn_hidden_size": 24,
    "dense_intermediate_size": 56,
    "n_group": 2,
    "topk_group": 1,
    # latent attention
    "q_lora_rank": 12,
    "kv_lora_rank": 12,
    "o_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    # state spaces and linear attention
    "mamba_d_state": 8,
    "mamba_d_head": 8,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_headdim": 8,
    "mamba_dt_rank": 4,
    "n_mamba_heads": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "chunk_size": 16,
    "mamba_chunk_size": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "n_groups": 2,
    # windows, longer than any text of a proof is short
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "rotary_dim": 4,
}
IDS = {"eos_token_id": 1, "pad_token_id": 2, "bos_token_id": 3}
HYBRID = ["linear_attention", "full_attention"] * 3
WINDOWED = ["sliding_attention", "sliding_attention", "full_attention"] * 2
# A mixer of a width that several hidden sizes divide.
MIXER = {"mamba_expand": 5, "mamba_n_heads": 20}
LATENT = {"num_key_value_heads": 4, "head_dim": 4, "qk_head_dim": 12}
# What a type needs besides: sizes whose keys only it has, and lists whose defaults are as long as the published model.
EXTRAS: dict[str, dict] = {
    "axk1": LATENT | {"n_group": 1},
    "axk2": LATENT,
    "bailing_hybrid": LATENT | {"layer_types": HYBRID, "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4},
    "bamba": MIXER | {"attn_layer_indices": [1, 4]},
    "cohere_compass_text": {"layer_types": WINDOWED},
    "deepseek_v2": LATENT | {"n_group": 1, "first_k_dense_replace": 2},
    "deepseek_v3": LATENT | {"first_k_dense_replace": 2},
    "deepseek_v32": LATENT,
    "dots3_note_text": LATENT | {"head_dim": 12, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
                                 "swa_q_lora_rank": 12, "swa_kv_lora_rank": 12, "swa_head_dim": 12,
                                 "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}},
    "dots3_note_vision_encoder": {"pyramid_num_routed": [-1, 4]},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 2},
    "dory": {"n_input_layers": 2, "n_output_layers": 2},
    "ernie4_5_moe": {"moe_layer_start_index": 2, "moe_layer_end_index": 5},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_groups": 2},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 3,
                     "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 4, "laurel_rank": 4,
                     "intermediate_size": [48] * 6,
                     "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0]},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 4,
                    "layer_types": WINDOWED, "per_layer_config": {"02": {"head_dim": 16}, "05": {"head_dim": 16}}},
    "gemma4_unified_text": {"layer_types": WINDOWED,
                            "per_layer_config": {"02": {"head_dim": 16}, "05": {"head_dim": 16}}},
    "glm4_moe": {"first_k_dense_replace": 2, "n_group": 1},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 3]], "window_size": 8, "intermediate_size": 48},
    "gpt2": {"n_inner": 48},
    "gpt_bigcode": {"n_inner": 48},
    "gptj": {"n_inner": 48},
    "codegen": {"n_inner": 48},
    "granitemoehybrid": MIXER | {"layer_types": HYBRID},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "jamba": {"mamba_expand": 5, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": LATENT | {"layer_types": HYBRID, "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 4},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 3, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 3, "num_dense_layers": 2},
    "longcat_flash": LATENT | {"zero_expert_num": 2, "ffn_hidden_size": 48, "num_layers": NUM_LAYERS},
    "llama4_text": {"moe_layers": [0, 2, 4]},
    "mamba2": {"expand": 5, "num_heads": 20},
    "minicpm3": LATENT,
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention",
                                         "moe"], "num_hidden_layers": None},
    "olmo_hybrid": {"layer_types": HYBRID},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "indexed_attention"] * 3, "indexer_n_heads": 2,
                       "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64, "hc_lowrank": 4,
                       "indexer_compress_ratio": 2},
    "sarvam_mla": LATENT,
    "xglm": {"ffn_dim": 48},
    "youtu": LATENT,
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 3, "n_mamba_heads": 2, "attention_hidden_size": 64,
              "attention_head_dim": 16, "mamba_expand": 5},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 3, "attention_hidden_size": 64,
               "attention_head_dim": 16, "hybrid_layer_ids": [1, 3, 5], "n_mamba_heads": 20, "adapter_rank": 4,
               "kv_channels": 8, "mamba_expand": 5},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}  # fmt: skip


# Sizes of vision and audio towers.
TOWER_SIZES = SIZES | {
    "num_hidden_layers": 2,
    "num_global_layers": 1,
    "num_key_value_heads": 4,
    "depth": 2,
    "num_heads": 4,
    "embed_dim": 32,
    "mlp_dim": 48,
    "image_size": 28,
    "patch_size": 14,
    "out_hidden_size": 32,
    "output_dim": 32,
    "projection_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
    "vision_output_dim": 32,
    "output_proj_dims": 32,
    "adapter_in_dim": 32,
    "adapter_out_dim": 32,
    "adapter_input_size": 32,
    "downsample_hidden_size": 8,
    "mm_tokens_per_image": 4,
    "num_position_embeddings": 16,
    "position_embedding_size": 16,
    "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
    "intermediate_layers_indices": [0],
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
}


def tiny_config(model_type: str, **changes: object) -> PreTrainedConfig:
    """Return a tiny config of a type, from its defaults; its text tower and the others are tiny as well."""
    default = AutoConfig.for_model(model_type)
    text = default.get_text_config()
    extras = EXTRAS.get(model_type, {})
    if default.sub_configs:
        towers = {name: getattr(default, name, None) for name in default.sub_configs}
        extras = {name: _tiny_tower(tower, text) for name, tower in towers.items() if tower is not None} | extras
    keys = default.to_dict().keys()
    sizes = {default.attribute_map.get(key, key): size for key, size in SIZES.items()}
    values = {key: size for key, size in sizes.items() if key in keys} | IDS | extras | changes
    return AutoConfig.for_model(model_type, **{key: value for key, value in values.items() if value is not None})


def _tiny_tower(tower: PreTrainedConfig, text: PreTrainedConfig) -> dict:
    if tower is text:
        return _with_short_sections(_tiny_text(text).to_dict())
    keys = tower.to_dict().keys()
    sizes = {tower.attribute_map.get(key, key): size for key, size in TOWER_SIZES.items()}
    values = {key: size for key, size in sizes.items() if key in keys} | EXTRAS.get(tower.model_type, {})
    return type(tower)(**values).to_dict()


def _tiny_text(text: PreTrainedConfig) -> PreTrainedConfig:
    if text.model_type in CONFIG_MAPPING_NAMES:
        return tiny_config(text.model_type)
    keys = text.to_dict().keys()
    sizes = {text.attribute_map.get(key, key): size for key, size in SIZES.items()}
    values = {key: size for key, size in sizes.items() if key in keys} | IDS | EXTRAS.get(text.model_type, {})
    return type(text)(**values)


def _with_short_sections(text: dict) -> dict:
    """Let the sections of a position embedding of images (time, height, width) add up to half of the tiny head_dim."""
    rope = text.get("rope_parameters") or {}
    has_sections = "mrope_section" in rope or "_vl" in text["model_type"] or "glm4v" in text["model_type"]
    return text | {"rope_parameters": rope | {"mrope_section": [2, 1, 1]}} if has_sections else text


def tiny_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a config in float32 and eval mode, whose every block matters."""
    torch.manual_seed(seed)
    model = model_class(config).from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(4)
    return model
