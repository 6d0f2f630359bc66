"""Score, prune and measure with the functions behind the verbs.

usage: python examples/prune_by_score.py MODEL rows.jsonl OUTPUT LAYERS
"""

import sys

from trl_prune import evaluate, prune, score


def main(model: str, rows: str, output: str, layers: str) -> None:
    """Cut a model to a number of blocks, each by the two one-pass scores, and say what is left of its probes."""
    scores = score(model, rows, samples=128)
    for by in ("angular_distance", "block_influence"):
        folder = prune(model, f"{output}-{by}", int(layers), scores, by)
        told = evaluate(str(folder), items=20)
        print(by, folder, sum(task.mean for task in told.values()) / len(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
