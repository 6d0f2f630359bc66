"""How a config says what each decoder block is, and the same for the blocks that are kept.

Configs do it with a list that has one entry per block (`layer_types`), a list of block indices (`mlp_only_layers`),
the number of first or last blocks (`first_k_dense_replace`), a dict by block index, or a pattern that repeats. A
pattern that repeats is rewritten where the type takes one of the other forms; whether the pruned model's blocks are
those of the dense one is checked on its modules (`surgery/depth.py`), not here.
"""

import math
from collections.abc import Callable, Sequence

from transformers import PreTrainedConfig

from trl_prune.checkpoints import num_blocks


# Keys that hold indices of blocks.
INDEX_KEYS = (
    "attn_layer_indices",
    "full_attn_idxs",
    "hybrid_layer_ids",
    "local_layer_ids",
    "moe_layers",
)
# Keys that count blocks from the first one, or from the last one.
FIRST_KEYS = ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
LAST_KEYS = ("num_kv_shared_layers",)


def pattern_changes(config: PreTrainedConfig, kept: Sequence[int], per_layer_keys: Sequence[str]) -> dict:
    """Return the config entries that say what each kept block is.

    Args:
        config: the dense model's config.
        kept: indices of the kept blocks.
        per_layer_keys: keys that hold a list with one entry per block.
    """
    changes = {}
    for key in per_layer_keys:
        # Read from the config object: it expands lists that config.json gives as a pattern over all blocks.
        entries = getattr(config, key, None)
        if entries is not None and not isinstance(entries, int | float):
            changes[key] = [entries[layer] for layer in kept]
    for rule in RULES:
        changes |= rule(config, kept)
    return changes


def _indices(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    listed = {key: getattr(config, key, None) for key in INDEX_KEYS}
    return {
        key: [new for new, layer in enumerate(kept) if layer in layers]
        for key, layers in listed.items()
        if layers is not None
    }


def _counts(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    num_layers = num_blocks(config)
    first = {key: getattr(config, key, None) for key in FIRST_KEYS}
    last = {key: getattr(config, key, None) for key in LAST_KEYS}
    changes = {key: sum(layer < count for layer in kept) for key, count in first.items() if count is not None}
    changes |= {
        key: sum(layer >= num_layers - count for layer in kept) for key, count in last.items() if count is not None
    }
    end = getattr(config, "moe_layer_end_index", None)  # the last block with experts; -1 is the last of all
    if end is not None and end >= 0:
        changes["moe_layer_end_index"] = sum(layer <= end for layer in kept) - 1
    return changes


def _dense_blocks_of_qwen(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """Qwen's mixtures say by index or interval which blocks have no experts; an index expresses both."""
    if not hasattr(config, "mlp_only_layers") or not hasattr(config, "decoder_sparse_step"):
        return {}
    dense = [
        new
        for new, layer in enumerate(kept)
        if layer in (config.mlp_only_layers or []) or (layer + 1) % config.decoder_sparse_step
    ]
    return {"mlp_only_layers": dense, "decoder_sparse_step": 1}


def _by_index(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    entries = config.to_dict().get("per_layer_config")
    if not entries:
        return {}
    by_layer = {int(layer): value for layer, value in entries.items()}
    return {"per_layer_config": {f"{new:02d}": by_layer[layer] for new, layer in enumerate(kept) if layer in by_layer}}


def _cycles(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """RecurrentGemma repeats a short list over all blocks, and takes one of full length as well."""
    cycle = getattr(config, "block_types", None)
    return {"block_types": [cycle[layer % len(cycle)] for layer in kept]} if cycle else {}


def _runs(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """GPT-Neo gives lists with the number of their repetitions."""
    if not hasattr(config, "attention_types") or not hasattr(config, "attention_layers"):
        return {}
    kinds = [config.attention_layers[layer] for layer in kept]
    return {"attention_types": [[kinds, 1]], "attention_layers": kinds}


def _residual_scale(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """MiniCPM scales every block's output by scale_depth / sqrt(number of blocks)."""
    scale = getattr(config, "scale_depth", None)
    return {} if scale is None else {"scale_depth": scale * math.sqrt(len(kept) / num_blocks(config))}


def _one_indexed(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """Qwen4 counts the blocks with embeddings by layer from one."""
    listed = getattr(config, "ple_layer_ids", None)
    return (
        {} if listed is None else {"ple_layer_ids": [new + 1 for new, layer in enumerate(kept) if layer + 1 in listed]}
    )


def _sections_of_dory(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """Dory counts the blocks that run once, those that run in a loop, and those that run once after it."""
    if not hasattr(config, "n_recurrent_layers"):
        return {}
    first, last = config.n_input_layers, config.num_hidden_layers - config.n_output_layers
    return {
        "n_input_layers": sum(layer < first for layer in kept),
        "n_recurrent_layers": sum(first <= layer < last for layer in kept),
        "n_output_layers": sum(layer >= last for layer in kept),
    }


def _blocks_of_xlstm(config: PreTrainedConfig, kept: Sequence[int]) -> dict:
    """XLSTM has its number of blocks under two keys."""
    return {"num_blocks": len(kept)} if getattr(config, "num_blocks", None) == config.num_hidden_layers else {}


RULES: tuple[Callable[[PreTrainedConfig, Sequence[int]], dict], ...] = (
    _indices,
    _counts,
    _dense_blocks_of_qwen,
    _by_index,
    _cycles,
    _runs,
    _residual_scale,
    _one_indexed,
    _sections_of_dory,
    _blocks_of_xlstm,
)
