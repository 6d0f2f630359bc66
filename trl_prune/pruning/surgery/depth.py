"""Whether a config can express a cut in depth: every kept block must compute what it computes in the dense model."""

from collections.abc import Mapping

from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.block_kinds import block_kinds, check_kinds
from trl_prune.pruning.surgery.cut import Cut, meta_model


# Kinds of blocks that mix tokens otherwise, or not at all.
WITHOUT_ATTENTION = ("linear_attention", "conv", "mamba", "moe", "mlp", "recurrent")


def check_depth(config: PreTrainedConfig, keep: Mapping[str, list]) -> None:
    """Check, on the meta device, that the blocks of a pruned model are of the kinds of the dense ones they come from.

    Raises:
        InputError: the config cannot express it, a block uses what a removed one computes, or the model uses a block's
            index in its computation.
    """
    cut = Cut.of(config, keep)
    kept = cut.keep[LAYERS]
    if kept == list(range(cut.sizes[LAYERS])):
        return
    for check in (_check_index_scale, _check_first_block, _check_shared_indexers, _check_shared_keys):
        check(cut.config, kept)
    check_kinds(cut.config, block_kinds(meta_model(config)), block_kinds(meta_model(config, {LAYERS: kept})), kept)


def loses_attention(config: PreTrainedConfig, keep: Mapping[str, list]) -> bool:
    """Return whether a hybrid keeps none of its blocks with attention over all tokens or a window of them."""
    types = getattr(config.get_text_config(), "layer_types", None) or []
    attends = [kind is not None and kind not in WITHOUT_ATTENTION for kind in types]
    return any(attends) and not any(attends[layer] for layer in keep.get(LAYERS, range(len(types))))


def _check_index_scale(config: PreTrainedConfig, kept: list[int]) -> None:
    """Check that GPT-2's blocks keep their indices where it divides their attention by them."""
    moved = [layer for new_layer, layer in enumerate(kept) if new_layer != layer]
    if getattr(config, "scale_attn_by_inverse_layer_idx", False) and moved:
        raise InputError(
            f"{config.model_type} with scale_attn_by_inverse_layer_idx divides the attention of a block by its index, "
            f"and block {moved[0]} would get another one: only the last blocks can be removed"
        )


def _check_first_block(config: PreTrainedConfig, kept: list[int]) -> None:
    """Check that MiniMax's first block has keys: transformers reads from its cache how long the text is."""
    if config.model_type == "minimax" and config.layer_types[kept[0]] == "linear_attention":
        raise InputError(
            f"minimax's first block must have full attention, or generation with a cache would be wrong, and block "
            f"{kept[0]} has linear attention: keep one with full attention before it"
        )


def _check_shared_indexers(config: PreTrainedConfig, kept: list[int]) -> None:
    """Check that blocks which use the token indices of an earlier block's indexer (DSA) still come after it."""
    types = getattr(config, "indexer_types", None) or []
    source: int | None = None
    for layer, kind in enumerate(types):
        source = layer if kind == "full" else source
        before = [other for other in kept if other < layer and types[other] == "full"]
        if layer in kept and kind == "shared" and before[-1:] != [source]:
            raise InputError(
                f"{config.model_type}'s block {layer} uses the token indices of block {source}: keep it, or remove "
                f"both"
            )


def _check_shared_keys(config: PreTrainedConfig, kept: list[int]) -> None:
    """Check that blocks which use the keys and values of an earlier block (Gemma 3n and 4) still use the same one's.

    In each kind of attention it is the last block before the sharing ones whose keys and values are used.
    """
    if not getattr(config, "num_kv_shared_layers", 0):
        return
    modes, types = config.kv_sharing_modes, config.layer_types
    for source in (layer for layer, mode in enumerate(modes) if mode == "store" and layer not in kept):
        users = [layer for layer in kept if modes[layer] == "reuse" and types[layer] == types[source]]
        if users:
            raise InputError(
                f"{config.model_type}'s blocks {', '.join(map(str, users))} use the keys and values of block "
                f"{source}: keep it, or remove them too"
            )
