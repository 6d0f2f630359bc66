"""Score, prune along several axes and measure, with the functions behind the verbs.

usage: python examples/prune_by_score.py MODEL rows.jsonl OUTPUT
"""

import sys

from trl_prune import evaluate, prune, score


CUTS = {
    "fewer-blocks": lambda sizes: {"num_hidden_layers": sizes["num_hidden_layers"] * 4 // 5},
    "fewer-neurons": lambda sizes: {"intermediate_size": sizes["intermediate_size"] * 3 // 4},
}


def main(model: str, rows: str, output: str) -> None:
    """Prune a model in two ways with one pass of scores, and print the mean score of each result."""
    scores = score(model, rows, samples=128)
    for name, sizes in CUTS.items():
        folder = prune(model, f"{output}-{name}", sizes=sizes(scores.sizes), scores=scores)
        scores_by_task = evaluate(str(folder), limit=20)
        print(name, folder, sum(task.mean for task in scores_by_task.values()) / len(scores_by_task))


if __name__ == "__main__":
    main(*sys.argv[1:])
