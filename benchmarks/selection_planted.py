"""Does selection find what was planted: clusters, how much each degraded, duplicates, and contradicting rows?

    python benchmarks/selection_planted.py [--rows 2000]

Embeddings of width 384 lie around random centres; each cluster has a known mean divergence. Five in a hundred rows are
near copies of others (cosine 0.96 to 1). Each row has one of two pairs of concepts of its cluster; in a known tenth of
the rows, which score below all others, concepts of the two pairs meet. Clusters are found by the sparse method and by
the paper's dense formulas. NMI is the agreement with the planted clusters, the budget's error the largest difference
in rows from the exact proportional share of the planted divergences. The last column is for a budget of as many rows
as are consistent.
"""

import argparse

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from trl_prune.data.selection.clustering import ClusteringSettings, cluster_rows
from trl_prune.data.selection.concepts import Concepts
from trl_prune.data.selection.duplicates import near_duplicates
from trl_prune.data.selection.methods import Request, select
from trl_prune.data.selection.paser import PaserSettings
from trl_prune.data.selection.pool import Pool


WIDTH, NOISE, COPIES, CONFLICTS, BUDGET = 384, 2.0, 0.05, 0.1, 0.2
CONCEPTS_PER_CLUSTER = 4
# Of a cluster's concepts; the last two conflict with the first two.
PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def planted_vectors(num_rows: int, num_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, the cluster of each, and which are near copies of an earlier one."""
    generator = np.random.default_rng(seed)
    centres, labels = unit(generator.normal(size=(num_clusters, WIDTH))), generator.integers(0, num_clusters, num_rows)
    vectors = unit(centres[labels] + NOISE * unit(generator.normal(size=(num_rows, WIDTH))))
    copies = np.arange(num_rows) >= round((1 - COPIES) * num_rows)
    sources = generator.choice(np.flatnonzero(~copies), size=copies.sum(), replace=False)
    cosines = generator.uniform(0.96, 1, size=(copies.sum(), 1))
    across = generator.normal(size=(copies.sum(), WIDTH))
    across -= (across * vectors[sources]).sum(1, keepdims=True) * vectors[sources]
    vectors[copies] = cosines * vectors[sources] + np.sqrt(1 - cosines**2) * unit(across)
    labels[copies] = labels[sources]
    return vectors.astype(np.float32), labels, copies


def planted_concepts(labels: np.ndarray, conflicting: np.ndarray) -> Concepts:
    """Return each row's two concepts: one of its cluster's pairs, or in a conflicting row one of each pair."""
    generator = np.random.default_rng(0)
    which = generator.integers(0, len(PAIRS) // 2, len(labels)) + np.where(conflicting, len(PAIRS) // 2, 0)
    ids = (CONCEPTS_PER_CLUSTER * labels[:, None] + np.array(PAIRS)[which]).astype(np.int32)
    names = [f"concept {index}" for index in range(CONCEPTS_PER_CLUSTER * (labels.max() + 1))]
    return Concepts(2 * np.arange(len(labels) + 1), ids.reshape(-1), names)


def measure(num_rows: int, num_clusters: int, seed: int) -> list[str]:
    """Return one line of the table."""
    vectors, labels, copies = planted_vectors(num_rows, num_clusters, seed)
    stands_for = near_duplicates(vectors)
    dropped = stands_for != np.arange(num_rows)
    kept = np.flatnonzero(~dropped)
    sparse = cluster_rows(vectors[kept], "auto", seed)
    dense = cluster_rows(vectors[kept], num_clusters, seed, ClusteringSettings(method="dense"))
    truth = labels[kept]
    generator = np.random.default_rng(seed)
    level = generator.uniform(0.02, 0.3, num_clusters)
    conflicting = generator.random(len(kept)) < CONFLICTS
    divergence = level[truth] * np.where(conflicting, 1e-3, generator.uniform(0.5, 1.5, len(kept)))
    tokens = np.full(len(kept), 100)
    concepts = planted_concepts(truth, conflicting)
    pool = Pool(kept, tokens, tokens, divergence, clusters=sparse.labels, concepts=concepts)
    budget = round(BUDGET * len(kept))
    chosen = select("paser", pool, Request(budget, paser=PaserSettings(consistency="hard")))
    means = np.array([divergence[truth == label].mean() for label in range(num_clusters)])
    counts = np.bincount(truth[np.isin(kept, chosen.rows)], minlength=num_clusters)
    every_consistent_row = select(
        "paser", pool, Request(int((~conflicting).sum()), paser=PaserSettings(consistency="hard"))
    )
    all_chosen = np.isin(kept, every_consistent_row.rows)
    return [
        f"{num_rows:,}",
        str(num_clusters),
        str(sparse.num_clusters),
        f"{normalized_mutual_info_score(truth, sparse.labels):.3f}",
        f"{normalized_mutual_info_score(truth, dense.labels):.3f}",
        f"{normalized_mutual_info_score(sparse.labels, dense.labels):.3f}",
        f"{sparse.stability:.3f}",
        f"{(dropped & copies).sum()} of {copies.sum()} ({(dropped & ~copies).sum()})",
        f"{np.abs(counts - budget * means / means.sum()).max():.2f}",
        f"{(all_chosen & ~conflicting).sum()} of {(~conflicting).sum()}, {(all_chosen & conflicting).sum()} of "
        f"{conflicting.sum()}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    columns = ["rows", "clusters", "found", "NMI, sparse", "NMI, dense", "NMI of the two", "stability"]
    columns += ["copies dropped (others)", "budget's error, rows", "consistent rows chosen, others"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for num_clusters, seed in ((3, 0), (8, 0), (8, 1), (15, 0)):
        print(f"| {' | '.join(measure(options.rows, num_clusters, seed))} |", flush=True)


if __name__ == "__main__":
    main()
