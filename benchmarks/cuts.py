"""Which blocks a model can lose: what each cut leaves of multiple choice and of generation, repaired and trained.

    python benchmarks/cuts.py --output OUT --text TEXT --train-text TEXT
    for recipe in OUT/*.yaml; do trl-prune run $recipe; done
    python benchmarks/cuts.py --output OUT --table

The first command writes a recipe for each cut of SmolLM2-135M (30 blocks): a linear map in the place of each removed
run, then 30,000 tokens of `local_kd`. The divergence is that from the dense model on paragraphs that no arm
trains on (`--text`, WikiText's test half); half of the training tokens are from others (`--train-text`).
"""

import argparse
from pathlib import Path

import yaml
from recovery_arms import ARGS, GENERATED, evaluation
from self_distillation import HELD_OUT_TEXTS, score_cell, write_paragraphs

from trl_prune.recipe import load_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


NUM_BLOCKS = 30
CUTS = {
    "13-18": range(13, 19),  # that of `angular_distance`
    "12-17": range(12, 18),
    "21-26": range(21, 27),
    "3-7,9": (*range(3, 8), 9),
    "3-7,14": (*range(3, 8), 14),
    "3,5,12,16,17,25": (3, 5, 12, 16, 17, 25),
    "4,5,16,17,25,26": (4, 5, 16, 17, 25, 26),
}


def recipe(output: Path, name: str, options: argparse.Namespace) -> dict:
    """Return the recipe of a cut."""
    kept = [block for block in range(NUM_BLOCKS) if block not in CUTS[name]]
    texts = [{"path": str(output / "train_text.jsonl")}, {"path": "quickstart"}]
    return {
        "model": "quickstart",
        "dataset": {"path": "quickstart"},
        "output": str(output / name),
        "score": {"samples": 128},
        "prune": {"keep": {"num_hidden_layers": kept}},
        "recover": {
            "local": {
                "method": "local_kd",
                "data": [{"source": "text", "share": 0.5, "dataset": dataset} for dataset in texts],
                "tokens": options.tokens,
                "args": ARGS | {"learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 0},
            }
        },
        "evaluate": evaluation(output, options.items),
    }


def print_table(output: Path) -> None:
    """Print what each cut leaves, before and after the training."""
    print("| removed | model | multiple choice | generation | KL on text |\n|---|---|---|---|---|")
    for name in CUTS:
        results = RunResults(Run(load_recipe(output / f"{name}.yaml", [])))
        choice = [task for task in results.scores["dense"] if task not in GENERATED]
        for model in ("pruned", "local"):
            cells = [score_cell(results.scores, model, tasks) for tasks in (choice, list(GENERATED))]
            print(f"| {name} | {model} | " + " | ".join(cells) + f" | {results.forgetting[model].kl:.3f} |")


def main() -> None:
    """Write the recipes, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="plain text to compare on")
    parser.add_argument("--train-text", type=Path, help="plain text to train on")
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=60, help="items of each probe")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        print_table(output)
        return
    output.mkdir(parents=True, exist_ok=True)
    write_paragraphs(options.text, output / "text.jsonl", HELD_OUT_TEXTS)
    write_paragraphs(options.train_text, output / "train_text.jsonl")
    for name in CUTS:
        (output / f"{name}.yaml").write_text(yaml.safe_dump(recipe(output, name, options), sort_keys=False))


if __name__ == "__main__":
    main()
