"""Which way of recovery gives most in the same time: fine-tuning, distillation, its data, its rate, its own answers.

    python benchmarks/recovery_arms.py --output OUT --text TEXT --train-text TEXT [--minutes 20] [--arms ...] [--by kl]
    trl-prune run OUT/recipe.yaml
    python benchmarks/recovery_arms.py --output OUT --table

The first command writes a recipe of arms that train on the quickstart's rows for the same number of minutes; the
second runs it, resumes it, and may be split into the verbs; the third prints the table and writes what every model
scored on each item to OUT/items.json. Multiple choice and generation are apart: a cut takes much more of the latter.
The divergence is that from the dense model on paragraphs that no arm trains on (`--text`, WikiText's test half); some
arms read others (`--train-text`). An arm `repair_then_...` goes on from `repair`, which is to be among the arms.
"""

import argparse
import json
from pathlib import Path

import yaml
from recovery import write_tasks
from self_distillation import HELD_OUT_TEXTS, score_cell, shorten, write_paragraphs

from trl_prune.checkpoints import load_config, locate
from trl_prune.recipe import load_recipe
from trl_prune.recipe.auto import ARGS as AUTO
from trl_prune.recipe.prune import MEASURED
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run
from trl_prune.smollm2 import smollm2


# Probes whose answers are generated; the others are chosen among given ones.
GENERATED = ("probe_arithmetic", "probe_extraction", "probe_plurals")
# Tasks of which no row is trained on; with `--data`.
OTHERS = ("arc_easy", "openbookqa", "piqa", "social_iqa", "boolq_closedbook")
ARGS = {
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 8,
    "max_length": 512,
    "gradient_checkpointing": False,
    "model_init_kwargs": {"attn_implementation": "eager"},
    "lr_scheduler_type": "warmup_stable_decay",
    "warmup_steps": 0.05,
}
KD = {"method": "kd", "data": "rewritten"}
ON_POLICY = {"lmbda": 0.5, "max_completion_length": 48, "min_completion_length": 8}
LORA = {"peft": {"r": 64, "lora_alpha": 128}, "args": {"learning_rate": 1e-3}}
GENTLE = LORA | {"args": {"learning_rate": 5e-4}}
HALF_TEXT = [{"source": "text", "share": 0.5, "dataset": {"path": "TEXT"}}, {"source": "text", "share": 0.5}]
LOCAL = {"learning_rate": 1e-3, "blocks_after_cut": 3}
REPAIRED = {"init": "repair", "share": 0.5}
GENTLE_ON_POLICY = GENTLE | {"args": GENTLE["args"] | ON_POLICY}
FROZEN = {"freeze_shared_blocks": True}
ARMS = {
    "auto": {"method": "auto", "data": "references", "validation": None},
    "sft_references": {"data": "references"},
    "kd_rewritten": KD,
    "sft_rewritten": {"data": "rewritten"},
    "kd_rewritten_rate_1e-3": KD | {"args": {"learning_rate": 1e-3}},
    "kd_references": KD | {"data": "references"},
    "sft_lora": {"data": "rewritten"} | LORA,
    "sft_frozen": {"data": "references", "args": FROZEN},
    "kd_every_token_frozen": KD | {"data": "text", "args": FROZEN},
    "kd_on_policy": KD | {"args": ON_POLICY},
    "kd_and_ce": KD | {"args": {"ce_weight": 0.5}},
    "kd_every_token": KD | {"data": "text"},
    "kd_text": KD | {"data": [{"source": "text", "share": 1.0, "dataset": {"path": "TEXT"}}]},
    "kd_mix": KD | {"data": [{"source": "rewritten", "share": 0.5}, {"source": "references", "share": 0.5}]},
    "kd_lora": KD | LORA,
    "kd_every_token_lora": {"method": "kd", "data": "text"} | LORA,
    "kd_half_text": KD | LORA | {"data": HALF_TEXT},
    "local": {"method": "local_kd", "data": HALF_TEXT, "args": LOCAL},
    # Half of the time for what they start from, so that both together take as long as the others.
    "local_half": {"method": "local_kd", "data": HALF_TEXT, "args": LOCAL, "share": 0.5},
    "local_then_sft": {"data": "references", "init": "local_half", "share": 0.5} | GENTLE,
    "local_then_kd": {"method": "kd", "data": HALF_TEXT, "init": "local_half", "share": 0.5} | GENTLE,
    "repair": {"method": "local_kd", "data": "text", "args": {"learning_rate": 1e-3}, "share": 0.5},
    "repair_then_sft": {"data": "references"} | REPAIRED,
    "repair_then_kd_lora": {"method": "kd", "data": "text"} | REPAIRED | GENTLE,
    "repair_then_on_policy": {"method": "kd", "data": "references"} | REPAIRED | GENTLE_ON_POLICY,
}


def recipe(output: Path, options: argparse.Namespace) -> dict:
    """Return the recipe of the chosen arms."""
    arms = {}
    for name in options.arms:
        arm = json.loads(json.dumps(ARMS[name]).replace("TEXT", str(output / "train_text.jsonl")))
        # On-policy steps take longer as answers grow, so that their budget is tokens.
        minutes = {"minutes": options.minutes * arm.pop("share", 1)}
        budget = {"tokens": options.tokens} if "lmbda" in arm.get("args", {}) else minutes
        args = ARGS if arm.get("method") != "auto" else {key: ARGS[key] for key in ARGS if key not in AUTO}
        arms[name.replace(".", "_")] = arm | budget | {"args": args | {"seed": options.seed} | arm.get("args", {})}
    measured = {"dataset": "generated", "max_new_tokens": 32} if options.by in MEASURED else {}
    reads_rewritten = "rewritten" in json.dumps(arms)
    rewrite = {"rewrite": {"max_new_tokens": 96, "batch_size": 64}} if reads_rewritten else {}
    others = {
        "tasks": ["recovery_probes", *(f"recovery_{name}" for name in OTHERS)],
        "include_path": [str(output / "tasks")],
    }
    return rewrite | {
        "model": options.model,
        "dataset": {"path": "quickstart", "rows": options.rows},
        "output": str(output / "run"),
        "score": {"samples": 128} | measured,
        "prune": prune_section(options),
        "recover": arms,
        "evaluate": evaluation(output, options.items) | (others if options.data else {}),
    }


def evaluation(output: Path, items: int) -> dict:
    """Return the `evaluate` section: so many items of each probe, and the texts that no arm trains on."""
    return {
        "tasks": ["recovery_probes"],
        "limit": items,
        "apply_chat_template": False,
        "held_out": {"path": str(output / "text.jsonl")},
        "questions": [],
        "batch_size": 64,
        "speed_seconds": 0,
    }


def prune_section(options: argparse.Namespace) -> dict:
    """Return the cut: that of `--remove`, or the one that `--by` finds."""
    if not options.remove:
        texts = {"texts": 16} if options.by in MEASURED else {}
        return {"by": options.by, "target": {"layers": options.layers}} | texts
    folder = smollm2() if options.model == "quickstart" else locate(options.model)
    count = load_config(folder).get_text_config().num_hidden_layers
    return {"keep": {"num_hidden_layers": [block for block in range(count) if block not in options.remove]}}


def print_table(output: Path) -> None:
    """Print what every finished model recovers of multiple choice and generation, and its divergence on text."""
    results = RunResults(Run(load_recipe(output / "recipe.yaml", [])))
    scores = results.scores
    others = [task for task in scores["dense"] if not task.startswith("probe_")]
    groups = {
        "multiple choice": [task for task in scores["dense"] if task not in (*GENERATED, *others)],
        "generation": list(GENERATED),
    } | ({"tasks without rows": others} if others else {})
    groups["all"] = list(scores["dense"])
    print("| model | tokens | " + " | ".join(groups) + " | KL on text |\n|---|---|" + "---|" * (len(groups) + 1))
    for name in scores:
        cells = [score_cell(scores, name, tasks) for tasks in groups.values()]
        tokens = f"{results.arms[name].metrics['tokens']:,}" if name in results.arms else ""
        print(f"| {name} | {tokens} | " + " | ".join(cells) + f" | {results.forgetting[name].kl:.3f} |")
    write_items(results, output / "items.json")


def write_items(results: RunResults, path: Path) -> None:
    """Write what every model scored on each item, a line for each task."""
    lines = []
    for model, scores in results.scores.items():
        tasks = [f'    "{task}": {json.dumps(list(map(_short, scores[task].items)))}' for task in scores]
        lines.append(f'  "{model}": {{\n' + ",\n".join(tasks) + "\n  }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _short(item: float) -> float | int:
    return int(item) if item in (0, 1) else round(item, 4)


def write_inputs(options: argparse.Namespace) -> None:
    """Write texts, tasks and the recipe into the output folder."""
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    write_paragraphs(options.text, output / "text.jsonl", HELD_OUT_TEXTS)
    write_paragraphs(options.train_text, output / "train_text.jsonl")
    if options.data:
        write_tasks(options.data, output / "tasks")
        for name in OTHERS:
            shorten(output / "tasks" / f"{name}.jsonl", options.items)
    (output / "recipe.yaml").write_text(yaml.safe_dump(recipe(output, options), sort_keys=False))


def main() -> None:
    """Write the recipe, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="plain text to compare on")
    parser.add_argument("--train-text", type=Path, help="plain text that some arms train on")
    parser.add_argument("--data", type=Path, help="datasets of which no row is trained on")
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--items", type=int, default=60, help="items of each probe")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=8000, help="the budget of kd_on_policy")
    parser.add_argument("--by", default="angular_distance", help="how blocks are chosen")
    parser.add_argument("--remove", type=int, nargs="+", default=[], help="blocks to remove, instead of --by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.table:
        print_table(options.output)
    else:
        write_inputs(options)


if __name__ == "__main__":
    main()
