"""The rows that a selection chooses from, as arrays of what was measured of them."""

from dataclasses import dataclass, fields

import numpy as np

from trl_prune.data.selection.concepts import Concepts


@dataclass(frozen=True)
class Pool:
    """The rows to choose from, without duplicates. What is not measured is None.

    Attributes:
        rows: their indices in the dataset, distinct, `(rows,)`.
        tokens: of prompt and answer, `(rows,)`.
        answer_tokens: of the answer, `(rows,)`.
        divergence: mean Jensen-Shannon divergence of the pruned from the dense model per answer token, in nats;
            NaN for a row without an answer, `(rows,)`.
        cross_entropy: of the pruned model per answer token, in nats; NaN likewise, `(rows,)`.
        answer_alone_cross_entropy: the same without the prompt, `(rows,)`.
        clusters: labels from 0, `(rows,)`.
        target_similarity: to each target row, the higher, the more alike, `(rows, targets)`.
        concepts: of each row.
    """

    rows: np.ndarray
    tokens: np.ndarray
    answer_tokens: np.ndarray
    divergence: np.ndarray | None = None
    cross_entropy: np.ndarray | None = None
    answer_alone_cross_entropy: np.ndarray | None = None
    clusters: np.ndarray | None = None
    target_similarity: np.ndarray | None = None
    concepts: Concepts | None = None

    def __post_init__(self) -> None:
        for attribute in fields(self):
            value = getattr(self, attribute.name)
            if value is not None and len(value) != len(self.rows):
                raise ValueError(f"{attribute.name} has {len(value)} rows, and the pool has {len(self.rows)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_clusters(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max(initial=-1)) + 1

    @property
    def cluster_sizes(self) -> np.ndarray:
        """Each cluster's number of rows, `(clusters,)`."""
        return np.bincount(self.clusters, minlength=self.num_clusters)


def degradation(pool: Pool) -> np.ndarray:
    """Return each cluster's capability degradation score, `(clusters,)`: the mean divergence of its rows.

    Rows without an answer have none; a cluster of such rows gets NaN (2502.12594, section 3.3).
    """
    scored = ~np.isnan(pool.divergence)
    labels, count = pool.clusters[scored], pool.num_clusters
    sums = np.bincount(labels, weights=pool.divergence[scored], minlength=count)
    sizes = np.bincount(labels, minlength=count)
    return np.divide(sums, sizes, out=np.full(count, np.nan), where=sizes > 0)
