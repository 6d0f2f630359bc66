"""Recovery at equal tokens: fine-tuning, distillation, and distillation on the dense model's own answers.

    python benchmarks/recovery.py --data DATA --output RUNS [--tokens 100000] [--part seed0|seed1|hidden|width]

SmolLM2-135M-Instruct loses 6 of its 30 blocks and trains on the given number of tokens from four datasets in
DATA/train; recovery is measured on the first 200 items of each dataset in DATA/eval, of which four have no training
rows. Every part is an ordinary run folder: the same command resumes it. The parts that cut depth differ in their arms
alone, so the score, prune and rewrite folders and the evaluations of dense and pruned may be copied from one to
another. Without --part the command prints the table and plots the score against tokens for all finished parts.

The scores of so small a model are near chance, and a few hundred items distinguish them poorly. So, with --data, the
command also compares each model with the dense one on the correct answers to 50 items of each dataset: KL divergence
(nats per token), cross-entropy, and how often both have the same likeliest token.

DATA holds JSON Lines: {"question", "choices", "answer": index} and, for gsm8k, {"question", "answer"}.
"""

import argparse
import json
import random
from pathlib import Path

import matplotlib as mpl
import torch
import yaml
from datasets import Dataset

import trl_prune
from trl_prune.checkpoints import read_provenance
from trl_prune.runs.ledger import Ledger


mpl.use("Agg")
import matplotlib.pyplot as plt


TRAINED = ("arc_easy", "arc_challenge", "openbookqa", "gsm8k")
HELD_OUT = ("boolq_closedbook", "social_iqa", "piqa", "winogrande")
TRAIN_ROWS, EVAL_ITEMS, ANSWERS = 150, 200, 50  # per dataset
DENSE_METRICS = ("kl", "ce_loss", "top1_agreement")
LEDGER_FILE = "nearness.json"
# The arms of each part.
PARTS = {
    "seed0": ["sft", "kd", "kd_rewritten"],
    "seed1": ["sft", "kd", "kd_rewritten"],
    "hidden": ["kd_hidden"],
    "width": ["kd"],
}
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc_norm"}],
}
NUMBER = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer.split('#### ')[-1].replace(',', '')}}",
    "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 128, "do_sample": False},
    "filter_list": [
        {"name": "last-number", "filter": [{"function": "regex", "group_select": -1, "regex_pattern": r"(-?\d+)"},
                                           {"function": "take_first"}]}
    ],
    "metric_list": [{"metric": "exact_match"}],
}  # fmt: skip


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_rows(data: Path, path: Path) -> None:
    """Write the training rows, the same for every part."""
    rows = []
    for name in TRAINED:
        sampled = random.Random(0).sample(read_rows(data / "train" / f"{name}.jsonl"), TRAIN_ROWS)
        rows += [training_row(name, item) for item in sampled]
    random.Random(0).shuffle(rows)
    path.write_text("\n".join(map(json.dumps, rows)))


def training_row(name: str, item: dict) -> dict:
    """Return an item of a dataset as a conversational row whose answer can be checked."""
    is_number = name == "gsm8k"
    answer = item["answer"].split("#### ")[-1].replace(",", "") if is_number else item["choices"][item["answer"]]
    text = item["answer"].replace("####", "The answer is") if is_number else answer
    return {
        "prompt": [{"role": "user", "content": item["question"]}],
        "completion": [{"role": "assistant", "content": text}],
        "answer_type": "number" if is_number else "phrase",
        "answer": answer,
        "capability": name,
    }


def write_tasks(data: Path, folder: Path) -> list[str]:
    """Write the first items of every dataset and an lm-eval task for each, and return the names of the tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TRAINED + HELD_OUT:
        items = [blank_filled(item) for item in read_rows(data / "eval" / f"{name}.jsonl")[:EVAL_ITEMS]]
        path = folder.resolve() / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, items)))
        num_choices = len(items[0].get("choices", []))
        task = {
            "task": f"recovery_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "metadata": {
                "capability": name,
                "trained": name in TRAINED,
                "chance": 1 / num_choices if num_choices else 0.0,
                "metric": "acc_norm" if num_choices else "exact_match",
            },
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | (CHOICE if num_choices else NUMBER)))
    return [f"recovery_{name}" for name in TRAINED + HELD_OUT]


def blank_filled(item: dict) -> dict:
    """Return an item; if its question has a blank, the text after it is moved into each choice."""
    if "_" not in item["question"] or "choices" not in item:
        return item
    before, after = item["question"].split("_", 1)
    return item | {"question": before.rstrip(), "choices": [f"{choice}{after}" for choice in item["choices"]]}


def recipe(part: str, output: Path, tasks: list[str], tokens: list[int]) -> dict:
    """Return the recipe of a part."""
    args = {"per_device_train_batch_size": 8, "learning_rate": 2e-4, "warmup_steps": 5}
    args |= {"seed": int(part == "seed1"), "gradient_checkpointing": False, "padding_free": True, "max_length": None}
    kd = {"method": "kd", "data": "references"}
    arms = {
        "sft": {"data": "references"},
        "kd": kd,
        "kd_rewritten": kd | {"data": "rewritten"},
        "kd_hidden": kd | {"args": {"hidden_loss": ["block", "embedding"]}},
    }
    recover = {
        f"{name}_{count // 1000}k": arms[name] | {"tokens": count, "args": args | arms[name].get("args", {})}
        for count in sorted(tokens, reverse=True)
        for name in PARTS[part]
    }
    depth = {"target": {"layers": 24}}
    width = {"target": {"share": 0.7, "axes": ["hidden_size", "intermediate_size"]}}
    return {
        "model": "quickstart",
        "dataset": {"path": str(output / "rows.jsonl")},
        "output": str(output / part),
        "score": {"samples": 128},
        "prune": width if part == "width" else depth,
        "rewrite": {"max_new_tokens": 128} if "kd_rewritten" in PARTS[part] else None,
        "recover": recover,
        "evaluate": {"tasks": tasks, "include_path": [str(output / "tasks")], "questions": [], "batch_size": 64},
    }


def finished_scores(output: Path) -> list[dict]:
    """Return the scores of all finished parts, one for each part, model and group of tasks."""
    scores = []
    for part in PARTS:
        path = output / part / "report" / "recovery.json"
        if path.is_file():
            scores += [score | {"part": part} for score in json.loads(path.read_text())["lines"]]
    return scores


def print_scores(output: Path) -> None:
    """Print score and recovery by part, model and group."""
    scores = finished_scores(output)
    groups = list(dict.fromkeys(score["group"] for score in scores))
    print("| part | model | " + " | ".join(f"{group}, score (recovery %)" for group in groups) + " |")
    print("|---|---|" + "---|" * len(groups))
    for part, model in dict.fromkeys((score["part"], score["model"]) for score in scores):
        by_group = {row["group"]: row["recovery"] for row in scores if (row["part"], row["model"]) == (part, model)}
        print(f"| {part} | {model} | " + " | ".join(score_cell(by_group[group]) for group in groups) + " |")


def score_cell(recovery: dict) -> str:
    """Return a score with its standard error, and the recovery, as text."""
    score = recovery["score"]
    return f"{score['value']:.3f} ± {score['stderr']:.3f} ({100 * recovery['recovery']['value']:.1f})"


def print_dense_metrics(output: Path, data: Path) -> None:
    """Print the comparison of every model of the finished parts with the dense one."""
    ledger, answers = Ledger(output / LEDGER_FILE), {}
    for group, names in (("trained", TRAINED), ("held_out", HELD_OUT)):
        items = [(name, item) for name in names for item in read_rows(data / "eval" / f"{name}.jsonl")[:ANSWERS]]
        answers[group] = Dataset.from_list([training_row(name, blank_filled(item)) for name, item in items])
    print("| part | model | " + " | ".join(f"{name}, {group}" for group in answers for name in DENSE_METRICS) + " |")
    print("|---|---|" + "---|" * (len(DENSE_METRICS) * len(answers)))
    for part, model in dict.fromkeys((score["part"], score["model"]) for score in finished_scores(output)):
        metrics = dense_metrics(ledger, output, part, model, answers)
        print(f"| {part} | {model} | " + " | ".join(f"{value:.3f}" for value in metrics.values()) + " |")


def model_path(part_dir: Path, model: str) -> Path:
    """Return the folder of a model's checkpoint."""
    pruned = part_dir / "prune" / "model"
    if model == "dense":
        return Path(read_provenance(pruned).dense["path"])
    return pruned if model == "pruned" else part_dir / "recover" / model / "model"


def dense_metrics(ledger: Ledger, output: Path, part: str, model: str, answers: dict) -> dict[str, float]:
    """Return the metrics of KDTrainer's evaluation with the dense model as teacher, measured once."""
    names = [f"eval_{group}_{name}" for group in answers for name in DENSE_METRICS]
    keys = {name: f"{part}/{model}/{name}" for name in names}
    if not all(key in ledger for key in keys.values()):
        kwargs = {"per_device_eval_batch_size": 16, "report_to": "none", "use_cpu": not torch.cuda.is_available()}
        args = trl_prune.KDConfig("unused", **kwargs)
        student, dense = (str(model_path(output / part, name)) for name in (model, "dense"))
        trainer = trl_prune.KDTrainer(student, args, None, answers["trained"], answers, teacher_model=dense)
        metrics = trainer.evaluate()
        ledger.update({keys[name]: metrics[name] for name in names})
    return {name: ledger[key] for name, key in keys.items()}


def plot(output: Path) -> None:
    """Plot mean scores, and divergences from the dense model where they were measured, against training tokens."""
    scores = [score for score in finished_scores(output) if score["part"] != "width"]
    groups = list(dict.fromkeys(score["group"] for score in scores))
    ledger = Ledger(output / LEDGER_FILE)
    figure, rows = plt.subplots(2, len(groups), figsize=(4.2 * len(groups), 7), layout="constrained")
    for axes, group in zip(rows[0], groups, strict=True):
        by_model = {(row["part"], row["model"]): row["recovery"]["score"] for row in scores if row["group"] == group}
        dense = next(score for (_, model), score in by_model.items() if model == "dense")
        axes.axhline(dense["value"], linestyle="--", linewidth=1, color="0.2", label="dense ± one standard error")
        axes.axhspan(dense["value"] - dense["stderr"], dense["value"] + dense["stderr"], color="0.2", alpha=0.1)
        plot_methods(axes, {key: score["value"] for key, score in by_model.items()})
        axes.set(title=group, ylabel="mean score")
    for axes, group in zip(rows[1], ("trained", "held_out"), strict=False):
        keys = [tuple(key.split("/")) for key in ledger if key.endswith(f"eval_{group}_kl")]
        kl = {(part, model): ledger[f"{part}/{model}/{name}"] for part, model, name in keys if part != "width"}
        plot_methods(axes, kl)
        axes.axhline(0, linestyle="--", linewidth=1, color="0.2")
        axes.set(title=f"right answers, {group.replace('_', ' ')}", ylabel="KL to dense, nats a token")
    handles, labels = rows[0][0].get_legend_handles_labels()
    rows[1][-1].axis("off")
    rows[1][-1].legend(handles, labels, loc="center")
    figure.savefig(output / "recovery.png", dpi=130)


def plot_methods(axes: plt.Axes, values: dict[tuple[str, str], float]) -> None:
    """Plot each method's mean over seeds, starting at the pruned model, and each seed as a dot.

    Args:
        axes: where to plot.
        values: a value for each part and model.
    """
    pruned = next((value for (_, model), value in values.items() if model == "pruned"), None)
    if pruned is None:
        return
    axes.axhline(pruned, linestyle="--", linewidth=1, color="0.6", label="pruned")
    methods: dict[str, dict[int, list[float]]] = {}
    for (_, model), value in values.items():
        method, _, tokens = model.rpartition("_")
        if method:
            methods.setdefault(method, {0: [pruned]}).setdefault(int(tokens[:-1]), []).append(value)
    for method, by_tokens in sorted(methods.items()):
        token_counts = sorted(by_tokens)
        means = [sum(by_tokens[tokens]) / len(by_tokens[tokens]) for tokens in token_counts]
        (line,) = axes.plot(token_counts, means, label=method)
        for tokens in token_counts[1:]:
            axes.plot([tokens] * len(by_tokens[tokens]), by_tokens[tokens], "o", color=line.get_color(), alpha=0.6)
    axes.set_xlabel("training tokens, thousands")


def main() -> None:
    """Run a part, or print and plot the results of the finished ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000])
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part is None:
        print_scores(options.output)
        if options.data is not None:
            print_dense_metrics(options.output, options.data)
        plot(options.output)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    if not (options.output / "rows.jsonl").exists():
        write_rows(options.data, options.output / "rows.jsonl")
    tasks = write_tasks(options.data, options.output / "tasks")
    trl_prune.run(recipe(options.part, options.output, tasks, options.tokens))


if __name__ == "__main__":
    main()
