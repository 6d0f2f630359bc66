"""A depth cut as a mergekit recipe (2410.09982 pruned its models with mergekit)."""

from itertools import pairwise

import yaml


def contiguous_ranges(indices: list[int]) -> list[tuple[int, int]]:
    """Return increasing indices as half-open ranges."""
    breaks = [position for position, (left, right) in enumerate(pairwise(indices), 1) if right != left + 1]
    bounds = [0, *breaks, len(indices)]
    return [(indices[start], indices[end - 1] + 1) for start, end in pairwise(bounds)]


def passthrough_recipe(model: str, layers: list[int], dtype: str) -> str:
    """Return a mergekit YAML that keeps the same blocks by the `passthrough` method.

    Args:
        model: the dense model, as mergekit will load it: a hub id or an absolute path.
        layers: indices of the kept blocks.
        dtype: the checkpoint's dtype, such as `bfloat16`.
    """
    # mergekit accepts a model only once per slice, so every range is a separate slice.
    slices = [
        {"sources": [{"model": model, "layer_range": list(layer_range)}]} for layer_range in contiguous_ranges(layers)
    ]
    return yaml.safe_dump({"merge_method": "passthrough", "slices": slices, "dtype": dtype}, sort_keys=False)
