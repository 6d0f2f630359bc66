"""The same depth cut as a recipe for mergekit (2410.09982 cut its models so)."""

from itertools import pairwise

import yaml


def contiguous(indices: list[int]) -> list[tuple[int, int]]:
    """Return growing indices as half-open ranges."""
    breaks = [place for place, (one, other) in enumerate(pairwise(indices), 1) if other != one + 1]
    bounds = [0, *breaks, len(indices)]
    return [(indices[start], indices[end - 1] + 1) for start, end in pairwise(bounds)]


def passthrough_recipe(model: str, layers: list[int], dtype: str) -> str:
    """Return a mergekit YAML that keeps the same blocks by the `passthrough` method.

    Args:
        model: the dense model as mergekit is to find it: a hub id or an absolute path.
        layers: the kept blocks.
        dtype: the checkpoint's, such as `bfloat16`.
    """
    ranges = contiguous(layers)
    # mergekit takes a model once a slice only, so every range is a slice of its own.
    slices = [{"sources": [{"model": model, "layer_range": list(bounds)}]} for bounds in ranges]
    return yaml.safe_dump({"merge_method": "passthrough", "slices": slices, "dtype": dtype}, sort_keys=False)
