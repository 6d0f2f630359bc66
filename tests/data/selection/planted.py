"""Embeddings with planted clusters."""

import numpy as np


def planted_clusters(
    num_rows: int, num_clusters: int, noise: float, seed: int = 0, width: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised embeddings around random centres and the cluster of each; `noise` is its length to theirs."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_rows) % num_clusters
    vectors = unit(generator.normal(size=(num_clusters, width)))[labels]
    vectors = vectors + noise * unit(generator.normal(size=(num_rows, width)))
    return unit(vectors), labels


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their length, as float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
