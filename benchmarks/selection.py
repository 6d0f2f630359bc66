"""Which tenth of the rows repairs a pruned model best: PASER's, random rows, or something else?

    python benchmarks/selection.py --data DATA --output OUT [--arms paser random ...] [--scale 0.5 --items 100]
    trl-prune run OUT/recipe.yaml
    python benchmarks/selection.py --output OUT --table

The first command writes 6,400 rows of six datasets, tasks and a recipe; the second runs it, resumes it, and may be
split into the verbs (`trl-prune select`, `recover`, `evaluate`). SmolLM2-135M-Instruct loses 6 of its 30 blocks; every
arm trains one epoch on the references of its rows with the same settings. Called again with more `--arms`, the first
command extends the recipe; what is measured and trained stays. The table gives each arm's cost and scores, multiple
choice and generation apart, and its paired differences from the random arms.

DATA holds JSON Lines: {"question", "choices", "answer": index}; for gsm8k {"question", "answer"}; for
roleplay_instructions {"instruction", "input", "output"}.
"""

import argparse
from pathlib import Path

from self_distillation import ARGS, PAPER_LORA, evaluate_section, only, score_cell, write_inputs

from trl_prune.evaluation.recovery import paired_difference
from trl_prune.recipe import load_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


ROWS = {
    "gsm8k": 1000,
    "arc_easy": 1600,
    "arc_challenge": 800,
    "openbookqa": 1600,
    "boolq_closedbook": 800,
    "roleplay_instructions": 600,
}
# What each arm changes in the `select` section.
ARMS = {
    "paser": {},
    "random": {"method": "random", "seed": 0},
    "random-1": {"method": "random", "seed": 1},
    "random-2": {"method": "random", "seed": 2},
    "matched-0": {"method": "random_matched", "seed": 0},
    "matched-1": {"method": "random_matched", "seed": 1},
    "matched-2": {"method": "random_matched", "seed": 2},
    "equal": {"method": "equal"},
    "by_size": {"allocation": "size"},
    "divergence": {"ranking": "divergence"},
    "random_inside": {"ranking": "random"},
    "hard": {"consistency": "hard"},
    "off": {"consistency": "off"},
    "full": {"method": "full"},
}
GENERATED = ("recovery_gsm8k", "probe_arithmetic", "probe_plurals", "probe_extraction")


def recipe(output: Path, options: argparse.Namespace) -> dict:
    """Return the recipe."""
    args = ARGS | {"num_train_epochs": 1}
    arm = {"data": "references", "args": args, "peft": PAPER_LORA | {"lora_dropout": 0.05}}
    return {
        "model": "quickstart",
        "dataset": {"path": str(output / "rows.jsonl")},
        "output": str(output / "run"),
        "score": {"samples": 128},
        "prune": {"target": {"layers": options.layers}, "repairs": {}},
        "select": {
            "budget": options.budget,
            "embedder": options.embedder,
            "max_length": 512,
            "selections": {name: ARMS[name] for name in options.arms if name not in ("paser", "random")},
        },
        "recover": {name: arm | ({} if name == "paser" else {"selection": name}) for name in options.arms},
        "evaluate": evaluate_section(output, options.items),
    }


def print_table(output: Path) -> None:
    """Print the finished models' costs, scores and differences from random rows."""
    results = RunResults(Run(load_recipe(output / "recipe.yaml", [])))
    scores, arms, seconds = results.scores, results.arms, results.seconds
    groups = {
        "multiple choice": [task for task in scores["dense"] if task not in GENERATED],
        "generation": [task for task in scores["dense"] if task in GENERATED],
    }
    print("| model | rows | tokens | minutes | " + " | ".join(groups) + " |\n|---|---|---|---|" + "---|" * len(groups))
    for name in scores:
        cost = arms[name].metrics if name in arms else {}
        minutes = f"{seconds[f'recover {name}'] / 60:.0f}" if name in arms else ""
        cells = [str(cost.get("rows", "")), f"{cost['tokens']:,}" if cost else "", minutes]
        cells += [score_cell(scores, name, tasks) for tasks in groups.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nselecting took {seconds.get('select', 0) / 60:.0f} minutes")
    randoms = [name for name in scores if name.split("-")[0] == "random"]
    print("\n| arm - random | " + " | ".join(f"{group}, {name}" for name in randoms for group in groups) + " |")
    print("|---|" + "---|" * (len(randoms) * len(groups)))
    for name in scores:
        if name in arms and name not in randoms:
            pairs = [
                (only(scores[name], tasks), only(scores[other], tasks))
                for other in randoms
                for tasks in groups.values()
            ]
            differences = [paired_difference(*pair) for pair in pairs]
            cells = [f"{100 * item.value:+.1f} ± {100 * item.stderr:.1f}" for item in differences]
            print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Write the recipe, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--embedder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--items", type=int, default=200, help="items of each task; half as many of gsm8k")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        print_table(output)
        return
    write_inputs(options, ROWS, recipe(output, options))


if __name__ == "__main__":
    main()
