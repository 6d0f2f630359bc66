"""Time and memory of finding duplicates, clustering and selecting, by the number of rows.

    python benchmarks/selection_scale.py [--rows 10000 100000 1000000] [--clusters auto]

Embeddings of width 384 in float16, on disk, around 20 random centres of unequal weight, of which 5% of the rows are
near copies of others (cosine 0.955 to 1); divergences and lengths are random. Each number of rows is a process of its
own. `found` is the share of copies that are dropped, `NMI` the agreement of the clusters with the centres, `exponent`
how CPU seconds grow with the rows since the line above. Of few rows, scikit-learn's SpectralClustering, told the
number of clusters, is measured too.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.cluster import SpectralClustering
from sklearn.metrics import normalized_mutual_info_score

from trl_prune.data.selection.clustering import cluster_rows
from trl_prune.data.selection.duplicates import near_duplicates
from trl_prune.data.selection.methods import Request, select
from trl_prune.data.selection.neighbours import blocks
from trl_prune.data.selection.paser import PaserSettings
from trl_prune.data.selection.pool import Pool


WIDTH, CENTRES, NOISE = 384, 20, 2.5
COPIES, COPY_COSINE = 0.05, 0.955
BUDGET = 0.2
LARGEST_SKLEARN = 10_000
EMBEDDINGS, TRUTH = "embeddings.npy", "truth.npz"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_rows(folder: Path, num_rows: int) -> None:
    """Write embeddings, block by block, the centre of each and the row that each copies, or itself."""
    generator = np.random.default_rng(0)
    centres = unit(generator.normal(size=(CENTRES, WIDTH)))
    weights = 1 / np.arange(2, CENTRES + 2)
    labels = generator.choice(CENTRES, size=num_rows, p=weights / weights.sum())
    copied = np.arange(num_rows)
    path = folder / EMBEDDINGS
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(num_rows, WIDTH))
    for rows in blocks(num_rows):
        count = rows.stop - rows.start
        vectors = unit(centres[labels[rows]] + NOISE * unit(generator.normal(size=(count, WIDTH))))
        copies = np.flatnonzero((generator.random(count) < COPIES) & (rows.start > 0))
        sources = generator.integers(0, max(rows.start, 1), size=len(copies))
        sources = sources[copied[sources] == sources]
        copies = copies[: len(sources)]
        cosines = generator.uniform(COPY_COSINE, 1, size=(len(copies), 1))
        originals = unit(np.asarray(stored[sources], dtype=np.float64))
        across = generator.normal(size=originals.shape)
        across -= (across * originals).sum(axis=1, keepdims=True) * originals
        vectors[copies] = cosines * originals + np.sqrt(1 - cosines**2) * unit(across)
        copied[rows.start + copies] = sources
        labels[rows.start + copies] = labels[sources]
        stored[rows] = vectors
    np.savez(folder / TRUTH, labels=labels, copied=copied)


def measure(folder: Path, clusters: int | str) -> dict[str, float]:
    """Return seconds, memory in GB and quality of one number of rows."""
    embeddings = np.load(folder / EMBEDDINGS, mmap_mode="r")
    truth = np.load(folder / TRUTH)
    result: dict[str, float] = {}
    with timed(result, "duplicates"):
        stands_for = near_duplicates(embeddings)
    kept = np.flatnonzero(stands_for == np.arange(len(embeddings)))
    candidates = np.lib.format.open_memmap(folder / "kept.npy", "w+", np.float16, (len(kept), WIDTH))
    for rows in blocks(len(kept)):
        candidates[rows] = embeddings[kept[rows]]
    with timed(result, "clustering"):
        clustering = cluster_rows(candidates, clusters)
    with timed(result, "selection"):
        choose(kept, clustering.labels)
    copies = np.flatnonzero(truth["copied"] != np.arange(len(embeddings)))
    return result | {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "found": float((stands_for[copies] != copies).mean()) if len(copies) else math.nan,
        "wrong": int(len(embeddings) - len(kept) - (stands_for[copies] != copies).sum()),
        "clusters": clustering.num_clusters,
        "stability": clustering.stability,
        "NMI": normalized_mutual_info_score(truth["labels"][kept], clustering.labels),
    }


def choose(kept: np.ndarray, labels: np.ndarray) -> None:
    """Select a share of the rows as PASER does, without the concepts' consistency, which is of texts."""
    generator = np.random.default_rng(1)
    tokens = generator.integers(20, 400, size=len(kept))
    pool = Pool(kept, tokens, tokens // 2, divergence=generator.random(len(kept)), clusters=labels)
    request = Request(int(BUDGET * len(kept)), paser=PaserSettings(consistency="off"))
    assert len(select("paser", pool, request).rows) == request.budget


def measure_sklearn(folder: Path) -> dict[str, float]:
    """Return seconds, memory and quality of scikit-learn's spectral clustering of the same rows."""
    embeddings = np.asarray(np.load(folder / EMBEDDINGS, mmap_mode="r"), dtype=np.float32)
    labels = np.load(folder / TRUTH)["labels"]
    result: dict[str, float] = {}
    with timed(result, "clustering"):
        found = SpectralClustering(CENTRES, affinity="nearest_neighbors", n_neighbors=15, random_state=0).fit_predict(
            embeddings
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result | {"peak": peak, "NMI": normalized_mutual_info_score(labels, found)}


@contextmanager
def timed(result: dict[str, float], part: str) -> Iterator[None]:
    """Record the CPU and elapsed seconds of a part."""
    cpu, elapsed = time.process_time(), time.perf_counter()
    yield
    result[part] = time.process_time() - cpu
    result[f"{part} elapsed"] = time.perf_counter() - elapsed


def in_a_process(*arguments: str) -> dict[str, float]:
    """Return what this script prints when it runs with these arguments in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_line(num_rows: int, result: dict[str, float], exponent: float) -> None:
    """Print one line of the table."""
    parts = ("duplicates", "clustering", "selection")
    seconds = " | ".join(f"{result[part]:.1f} ({result[f'{part} elapsed']:.1f})" for part in parts)
    print(
        f"| {num_rows:,} | {seconds} | {exponent:.2f} | {result['peak']:.2f} | {result['found']:.4f} | "
        f"{result['wrong']} | {result['clusters']} | {result['stability']:.3f} | {result['NMI']:.4f} |",
        flush=True,
    )


def main() -> None:
    """Measure each number of rows in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--clusters", default="auto")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sklearn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        clusters = options.clusters if options.clusters == "auto" else int(options.clusters)
        result = measure_sklearn(options.folder) if options.sklearn else measure(options.folder, clusters)
        print(json.dumps(result))
        return
    columns = ["rows", "duplicates, CPU s (elapsed)", "clustering", "selection", "exponent", "peak, GB", "found"]
    columns += ["wrongly dropped", "clusters", "stability", "NMI"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    last_rows, last_seconds = 0, math.nan
    for num_rows in options.rows:
        with TemporaryDirectory() as folder:
            write_rows(Path(folder), num_rows)
            result = in_a_process("--folder", folder, "--clusters", options.clusters)
            seconds = result["duplicates"] + result["clustering"] + result["selection"]
            growth = math.log(seconds / last_seconds) / math.log(num_rows / last_rows) if last_rows else math.nan
            print_line(num_rows, result, growth)
            last_rows, last_seconds = num_rows, seconds
            if num_rows <= LARGEST_SKLEARN:
                peer = in_a_process("--folder", folder, "--sklearn")
                print(
                    f"| scikit-learn, {num_rows:,} | | {peer['clustering']:.1f} ({peer['clustering elapsed']:.1f}) | "
                    f"| | {peer['peak']:.2f} | | | {CENTRES} | | {peer['NMI']:.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
