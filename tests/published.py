"""Configs of published mixtures, and checkpoints of their size that take no space on disk."""

import json
import math
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

from trl_prune.checkpoints import INDEX
from trl_prune.pruning.surgery.cut import meta_model


SHARD_WEIGHTS = 2_000_000_000
CONFIGS: dict[str, dict] = {
    "Qwen3-235B-A22B": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536,
        "num_hidden_layers": 94, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128,
        "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "tie_word_embeddings": False, "max_position_embeddings": 40960,
    },
    "DeepSeek-V3": {
        "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "first_k_dense_replace": 3,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
        "routed_scaling_factor": 2.5, "tie_word_embeddings": False, "max_position_embeddings": 163840,
    },
    "gpt-oss-120b": {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 128,
        "num_experts_per_tok": 4, "sliding_window": 128, "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
}  # fmt: skip


def published_config(name: str) -> PreTrainedConfig:
    """Return the config of a published mixture."""
    values = dict(CONFIGS[name])
    return AutoConfig.for_model(values.pop("model_type"), **values)


def save_hollow(folder: Path, config: PreTrainedConfig) -> Path:
    """Write a checkpoint of a config whose weights are holes in files: all sizes are right, all values are zero."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    model = meta_model(config)
    shards: list[dict[str, list[int]]] = [{}]
    for name, tensor in revert_weight_conversion(model, model.state_dict()).items():
        if sum(map(math.prod, shards[-1].values())) > SHARD_WEIGHTS:
            shards.append({})
        shards[-1][name] = list(tensor.shape)
    weight_map = {}
    for number, shapes in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_hole(folder / file, shapes)
        weight_map |= dict.fromkeys(shapes, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _write_hole(path: Path, shapes: dict[str, list[int]]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * math.prod(shape)]}
        offset += 2 * math.prod(shape)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
