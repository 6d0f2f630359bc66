"""Does self-data distillation recover more than fine-tuning on the references, above all on what was not trained?

    python benchmarks/self_distillation.py --data DATA --output OUT [--model MODEL --layers 20] [--seeds 0 1]
    trl-prune run OUT/recipe.yaml
    python benchmarks/self_distillation.py --output OUT --table

The first command writes rows, tasks and a recipe; the second runs it, resumes it, and may be split into the verbs
(`trl-prune recover`, `trl-prune evaluate`). The arms differ in their answers (references or rewritten), their weights
(LoRA as in 2402.13669, or all) and their seed, and train on the same number of tokens. The table gives scores, chance
corrected recovery and the paired difference of rewritten and reference answers, for tasks with and without training
rows, for the shipped probes and for HumanEval (`--tasks ... humaneval`), which no row resembles.

DATA holds JSON Lines: {"question", "choices", "answer": index}; for gsm8k {"question", "answer"}; for
roleplay_instructions {"instruction", "input", "output"}; for humaneval HumanEval's own; and wikitext2.txt.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import yaml
from recovery import HELD_OUT, TRAINED, read_rows, training_row, write_tasks

from trl_prune.evaluation.harness.tasks import shipped_tasks_dir
from trl_prune.evaluation.recovery import TaskScore, paired_difference, recovery
from trl_prune.recipe import load_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


ROWS = {"gsm8k": 300, "arc_easy": 150, "arc_challenge": 150, "openbookqa": 300, "roleplay_instructions": 300}
TOKENS = 100_000
PAPER_LORA = {"r": 8, "lora_alpha": 16}
PROBES, CODE = "probes", "humaneval"
PARAGRAPH, HELD_OUT_TEXTS = 400, 32  # characters of a text at least; texts
ARGS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-4,
    "warmup_steps": 0.1,
    "max_length": None,
    "padding_free": True,
    "gradient_checkpointing": False,
}


def write_training_rows(data: Path, path: Path, counts: dict[str, int]) -> None:
    """Write so many training rows of each dataset, shuffled."""
    rows = []
    for name, count in counts.items():
        for item in random.Random(0).sample(read_rows(data / "train" / f"{name}.jsonl"), count):
            rows.append(roleplay_row(item) if "instruction" in item else training_row(name, item))
    random.Random(0).shuffle(rows)
    path.write_text("\n".join(map(json.dumps, rows)))


def write_inputs(options: argparse.Namespace, counts: dict[str, int], values: dict) -> None:
    """Write rows, tasks and the recipe into the output folder."""
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    scaled = {name: round(options.scale * count) for name, count in counts.items()}
    write_training_rows(options.data, output / "rows.jsonl", scaled)
    write_tasks(options.data, output / "tasks")
    for name in TRAINED + HELD_OUT:
        shorten(output / "tasks" / f"{name}.jsonl", options.items // (2 if name == "gsm8k" else 1))  # it is generated
    write_code_task(options.data, output / "tasks", options.problems)
    write_paragraphs(options.data / "eval" / "wikitext2.txt", output / "held_out.jsonl", HELD_OUT_TEXTS)
    (output / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def write_code_task(data: Path, folder: Path, problems: int) -> None:
    """Write the first problems of HumanEval, and the shipped task on them with answers of at most 256 tokens."""
    path = folder / f"{CODE}.jsonl"
    path.write_text("\n".join(map(json.dumps, read_rows(data / "eval" / f"{CODE}.jsonl")[:problems])))
    shipped = shipped_tasks_dir() / "local_humaneval" / "local_humaneval.yaml"
    generation = yaml.safe_load(shipped.read_text().replace("!function ", ""))["generation_kwargs"]
    task = {
        "include": str(shipped),
        "task": f"recovery_{CODE}",
        "generation_kwargs": generation | {"max_gen_toks": 256},
        "metadata": {"capability": "code", "chance": 0.0, "metric": "pass@1", "humaneval_file": str(path)},
    }
    (folder / f"{CODE}.yaml").write_text(yaml.safe_dump(task))


def write_paragraphs(source: Path, target: Path, count: int | None = None) -> None:
    """Write the long lines of a plain text as rows, the first ones or all."""
    lines = [line.strip() for line in source.read_text(encoding="utf-8").split("\n") if len(line) > PARAGRAPH]
    target.write_text("\n".join(json.dumps({"text": line}) for line in lines[:count]))


def roleplay_row(item: dict) -> dict:
    """Return an instruction as a conversational row with an open answer."""
    prompt = "\n\n".join(filter(None, [item["instruction"], item["input"]]))
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": item["output"]}],
        "answer_type": "open",
        "answer": None,
        "capability": "roleplay",
    }


def shorten(path: Path, items: int) -> None:
    """Keep a task's first items only."""
    path.write_text("\n".join(path.read_text().split("\n")[:items]))


def recipe(output: Path, options: argparse.Namespace) -> dict:
    """Return the recipe."""
    arms = {}
    for seed in options.seeds:
        for weights, peft in {"lora": PAPER_LORA, "full": None}.items():
            for name, source in (("sft", "references"), ("selfd", "rewritten")):
                arm = {
                    "data": source,
                    "tokens": round(options.scale * TOKENS),
                    "args": ARGS | {"seed": seed},
                    "peft": peft,
                }
                arms[f"{name}_{weights}_{seed}"] = arm
    return {
        "model": options.model,
        "dataset": {"path": str(output / "rows.jsonl")},
        "output": str(output / "run"),
        "score": {"samples": 128},
        "prune": {"target": {"layers": options.layers}, "repairs": {}},
        "rewrite": {"max_new_tokens": 192, "batch_size": 32},
        "recover": arms,
        "evaluate": evaluate_section(
            output, max(options.items, CODE in options.tasks and options.problems), options.tasks
        )
        | {
            "held_out": {"path": str(output / "held_out.jsonl")},
            "apply_chat_template": False if CODE in options.tasks else "auto",  # code goes on behind its prompt
            "confirm_run_unsafe_code": CODE in options.tasks,
        },
    }


def evaluate_section(output: Path, items: int, tasks: Sequence[str] = (*TRAINED, *HELD_OUT, PROBES)) -> dict:
    """Return the `evaluate` section of a recipe over some of the written tasks and the probes."""
    return {
        "tasks": [f"recovery_{name}" for name in tasks],
        "include_path": [str(output / "tasks")],
        "questions": [],
        "batch_size": 64,
        "limit": items,
    }


def print_table(output: Path) -> None:
    """Print the finished models' scores and the paired differences."""
    scores = RunResults(Run(load_recipe(output / "recipe.yaml", []))).scores
    groups = {
        "with training rows": [f"recovery_{name}" for name in TRAINED],
        "without training rows": [f"recovery_{name}" for name in HELD_OUT],
        "probes": [
            task for task in scores["dense"] if task.removeprefix("recovery_") not in (*TRAINED, *HELD_OUT, CODE)
        ],
        "HumanEval": [f"recovery_{CODE}"],
    }
    groups = {name: [task for task in tasks if task in scores["dense"]] for name, tasks in groups.items()}
    groups = {name: tasks for name, tasks in groups.items() if tasks}
    print("| model | " + " | ".join(groups) + " |\n|---|" + "---|" * len(groups))
    for name in scores:
        print(f"| {name} | " + " | ".join(score_cell(scores, name, tasks) for tasks in groups.values()) + " |")
    print("\n| rewritten - references | " + " | ".join(groups) + " |\n|---|" + "---|" * len(groups))
    for name in scores:
        other = name.replace("selfd", "sft")
        if name != other and other in scores:
            pairs = [[only(scores[model], tasks) for model in (name, other)] for tasks in groups.values()]
            differences = [paired_difference(*pair) for pair in pairs]
            cells = [f"{100 * item.value:+.1f} ± {100 * item.stderr:.1f}" for item in differences]
            print(f"| {name} | " + " | ".join(cells) + " |")


def only(scores: dict[str, TaskScore], tasks: list[str]) -> dict[str, TaskScore]:
    """Return the scores on these tasks."""
    return {task: scores[task] for task in tasks}


def score_cell(scores: dict, model: str, tasks: list[str]) -> str:
    """Return a mean score with its standard error, and in brackets the chance-corrected recovery, all in percent."""
    result = recovery(*(only(scores[name], tasks) for name in (model, "dense", "pruned")))
    corrected = f" ({100 * result.corrected.value:.0f})" if result.corrected else ""
    return f"{100 * result.score.value:.1f} ± {100 * result.score.stderr:.1f}{corrected}"


def main() -> None:
    """Write the recipe, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows and of the 100,000 tokens an arm")
    parser.add_argument("--items", type=int, default=200, help="items of each task; half as many of gsm8k")
    parser.add_argument("--problems", type=int, default=60, help="problems of HumanEval")
    parser.add_argument("--tasks", nargs="+", default=[*TRAINED, *HELD_OUT, PROBES], help="and: humaneval")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        print_table(output)
        return
    write_inputs(options, ROWS, recipe(output, options))


if __name__ == "__main__":
    main()
