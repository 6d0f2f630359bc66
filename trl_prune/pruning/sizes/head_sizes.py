"""Cuts after which `head_dim` is no longer hidden_size / num_attention_heads, which some loaders take for granted."""

from collections.abc import Iterator, Mapping

from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.shapes import complete_sizes
from trl_prune.pruning.surgery.cut import head_dim


# Who does not read `head_dim` from the config of which model types: what benchmarks/loaders.py measured, no more
# (docs/compatibility.md).
LOADERS_WITHOUT_HEAD_DIM = {"CTranslate2": ("llama", "qwen2")}


def refusing_loaders(kept: Mapping[str, int], costs: Costs) -> list[str]:
    """Return the loaders that were measured to refuse a cut of a model that they take, because of its `head_dim`.

    Args:
        kept: units that are kept, by axis; an axis that is left out keeps its dense size.
        costs: the dense model.
    """
    sizes = costs.sizes | kept
    if HEADS not in costs.sizes or not _divides(costs.sizes, costs) or _divides(sizes, costs):
        return []
    return [loader for loader, types in LOADERS_WITHOUT_HEAD_DIM.items() if costs.config.model_type in types]


def nearest_dividing_sizes(kept: Mapping[str, int], costs: Costs) -> dict[str, int] | None:
    """Return the nearest smaller sizes with the dense `head_dim` = hidden_size / num_attention_heads.

    Args:
        kept: units that are kept, by axis.
        costs: the dense model.

    Returns:
        Heads, KV heads and hidden channels that surgery can express, none more than kept, with the least sum of their
        relative changes and of those the most channels; None where there are none.
    """
    sizes = costs.sizes | kept

    def distance(candidate: Mapping[str, int]) -> tuple[float, int]:
        changes = ((sizes[axis] - size) / costs.sizes[axis] for axis, size in candidate.items())
        return round(sum(changes), 9), -candidate[HIDDEN]

    smaller = (
        candidate
        for candidate in _dividing_sizes(costs)
        if all(size <= sizes[axis] for axis, size in candidate.items())
    )
    return min(smaller, key=distance, default=None)


def _dividing_sizes(costs: Costs) -> Iterator[dict[str, int]]:
    width, groups = _head_dim(costs), costs.sizes.get(KV_HEADS, 1)
    for kv_heads in range(1, groups + 1):
        for heads in range(kv_heads, kv_heads * costs.sizes[HEADS] // groups + 1, kv_heads):
            candidate = {HEADS: heads, KV_HEADS: kv_heads, HIDDEN: heads * width}
            candidate = {axis: size for axis, size in candidate.items() if axis in costs.sizes}
            if complete_sizes(candidate, costs) is not None:
                yield candidate


def _divides(sizes: Mapping[str, int], costs: Costs) -> bool:
    return sizes.get(HIDDEN, costs.config.hidden_size) == sizes[HEADS] * _head_dim(costs)


def _head_dim(costs: Costs) -> int:
    return head_dim(costs.config) or costs.config.hidden_size // costs.config.num_attention_heads
