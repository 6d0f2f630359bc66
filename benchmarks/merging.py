"""Does a merge of two recovered models beat both of them, and one model trained on both data sets?

    python benchmarks/merging.py --data DATA --rewritten ROWS --output OUT [--items 60]
    trl-prune run OUT/recipe.yaml
    python benchmarks/merging.py --output OUT --table

ROWS are the rows of a `rewrite` stage (`rewrite/rows.jsonl`): the dense model's own answers, with a `capability` each.
The first command divides them into grade-school mathematics and the rest, writes tasks, and a recipe:
SmolLM2-135M-Instruct loses 6 of its 30 blocks, one arm trains on each part, one on both with the tokens of the two
together, and each shipped recipe merges the two arms. The table gives the
scores, multiple choice and generation apart, and the paired differences of each merge from both its parents and from
the arm trained on both.
"""

import argparse
import json
from pathlib import Path

import yaml
from recovery import write_tasks
from selection import GENERATED
from self_distillation import ARGS, PAPER_LORA, evaluate_section, only, score_cell, shorten

from trl_prune.evaluation.recovery import paired_difference
from trl_prune.recipe import load_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


PARENTS, BOTH = ("mathematics", "other"), "both"
RECIPES = (
    "slerp", "gradient_slerp", "nuslerp", "multislerp", "linear", "ties", "dare_ties", "task_arithmetic",
    "model_stock", "karcher",
)  # fmt: skip


def write_rows(rewritten: Path, output: Path) -> None:
    """Write the rows of each parent, and of both."""
    rows = [json.loads(line) for line in rewritten.read_text().splitlines()]
    parts = {
        "mathematics": [row for row in rows if row["capability"] == "gsm8k"],
        "other": [row for row in rows if row["capability"] != "gsm8k"],
        BOTH: rows,
    }
    for name, part in parts.items():
        (output / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))


def recipe(output: Path, options: argparse.Namespace) -> dict:
    """Return the recipe."""
    tokens = dict.fromkeys(PARENTS, options.tokens) | {BOTH: 2 * options.tokens}
    arms = {
        name: {
            "data": [{"source": "references", "share": 1.0, "dataset": {"path": str(output / f"{name}.jsonl")}}],
            "tokens": count,
            "args": ARGS,
            "peft": PAPER_LORA,
        }
        for name, count in tokens.items()
    }
    merges = {name: {"recipe": name, "models": list(PARENTS)} for name in RECIPES}
    return {
        "model": "quickstart",
        "dataset": {"path": str(output / f"{BOTH}.jsonl")},
        "output": str(output / "run"),
        "score": {"samples": 128},
        "prune": {"target": {"layers": options.layers}, "repairs": {}},
        "recover": arms,
        "merge": merges,
        "evaluate": evaluate_section(output, options.items),
    }


def print_table(output: Path) -> None:
    """Print the scores and the differences of each merge from its parents and from the arm trained on both."""
    scores = RunResults(Run(load_recipe(output / "recipe.yaml", []))).scores
    groups = {
        "multiple choice": [task for task in scores["dense"] if task not in GENERATED],
        "generation": [task for task in scores["dense"] if task in GENERATED],
    }
    others = [name for name in (*PARENTS, BOTH) if name in scores]
    heads = [*groups, *(f"- {other}, {group}" for other in others for group in groups)]
    print("| model | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for name in scores:
        cells = [score_cell(scores, name, tasks) for tasks in groups.values()]
        cells += [difference(scores, name, other, tasks) for other in others for tasks in groups.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def difference(scores: dict, one: str, other: str, tasks: list[str]) -> str:
    """Return the paired difference of two models' mean scores on tasks, in points."""
    if one == other:
        return ""
    found = paired_difference(only(scores[one], tasks), only(scores[other], tasks))
    return f"{100 * found.value:+.1f} ± {100 * found.stderr:.1f}"


def main() -> None:
    """Write the recipe, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rewritten", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=25_000, help="training tokens of a parent")
    parser.add_argument("--items", type=int, default=60, help="items of each task; half as many of gsm8k")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        print_table(output)
        return
    output.mkdir(parents=True, exist_ok=True)
    write_rows(options.rewritten, output)
    write_tasks(options.data, output / "tasks")
    shorten(output / "tasks" / "gsm8k.jsonl", options.items // 2)
    (output / "recipe.yaml").write_text(yaml.safe_dump(recipe(output, options), sort_keys=False))


if __name__ == "__main__":
    main()
