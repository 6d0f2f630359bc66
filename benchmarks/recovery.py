"""Recovery at equal tokens: fine-tuning, distillation, and distillation on the dense model's own answers.

    python benchmarks/recovery.py --data DATA --output RUNS [--tokens 100000] [--part seed0|seed1|hidden|width]

SmolLM2-135M-Instruct loses 6 of its 30 blocks and trains on the given tokens of four kinds of rows in DATA/train; what
came back is measured on the first 200 items of each file in DATA/eval, of which four kinds had no training rows. Every
part is an ordinary run folder: the same command goes on where it stopped. The parts that cut depth differ in what they
train alone, so one's score, prune and rewrite folders and its evaluations of dense and pruned may be copied into
another. Without --part the command prints the table and draws the score against tokens from whatever parts are there.

Scores of a model this small lie near chance, and a few hundred items say little. With --data the command tells as well
how near each model is to the dense one on the right answers to 50 items of each kind: KL divergence (nats a token),
cross-entropy, and how often both find the same token likeliest.

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
ROWS_A_KIND, ITEMS, ANSWERS = 150, 200, 50
NEARNESS = ("kl", "ce_loss", "top1_agreement")
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


def read(path: Path) -> list[dict]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_rows(data: Path, path: Path) -> None:
    """Write the training rows, the same for every part."""
    rows = []
    for kind in TRAINED:
        drawn = random.Random(0).sample(read(data / "train" / f"{kind}.jsonl"), ROWS_A_KIND)
        rows += [row(kind, told) for told in drawn]
    random.Random(0).shuffle(rows)
    path.write_text("\n".join(map(json.dumps, rows)))


def row(kind: str, told: dict) -> dict:
    """Return a row as a conversation with an answer that can be checked."""
    number = kind == "gsm8k"
    answer = told["answer"].split("#### ")[-1].replace(",", "") if number else told["choices"][told["answer"]]
    text = told["answer"].replace("####", "The answer is") if number else answer
    return {
        "prompt": [{"role": "user", "content": told["question"]}],
        "completion": [{"role": "assistant", "content": text}],
        "answer_type": "number" if number else "phrase",
        "answer": answer,
        "capability": kind,
    }


def write_tasks(data: Path, folder: Path) -> list[str]:
    """Write the first items of every kind and an lm-eval task for each, and return the tasks' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in TRAINED + HELD_OUT:
        items = [blank_filled(item) for item in read(data / "eval" / f"{kind}.jsonl")[:ITEMS]]
        path = folder.resolve() / f"{kind}.jsonl"
        path.write_text("\n".join(map(json.dumps, items)))
        choices = len(items[0].get("choices", []))
        task = {
            "task": f"recovery_{kind}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "metadata": {
                "capability": kind,
                "trained": kind in TRAINED,
                "chance": 1 / choices if choices else 0.0,
                "metric": "acc_norm" if choices else "exact_match",
            },
        }
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(task | (CHOICE if choices else NUMBER)))
    return [f"recovery_{kind}" for kind in TRAINED + HELD_OUT]


def blank_filled(item: dict) -> dict:
    """Return an item; where its question has a blank, the choices are what stands from there on."""
    if "_" not in item["question"] or "choices" not in item:
        return item
    before, after = item["question"].split("_", 1)
    return item | {"question": before.rstrip(), "choices": [f"{choice}{after}" for choice in item["choices"]]}


def recipe(part: str, output: Path, tasks: list[str], tokens: list[int]) -> dict:
    """Return the recipe of a part."""
    args = {"per_device_train_batch_size": 8, "learning_rate": 2e-4, "warmup_steps": 5}
    args |= {"seed": int(part == "seed1"), "gradient_checkpointing": False, "padding_free": True, "max_length": None}
    distill = {"method": "kd", "data": "references"}
    arms = {
        "sft": {"data": "references"},
        "kd": distill,
        "kd_rewritten": distill | {"data": "rewritten"},
        "kd_hidden": distill | {"args": {"hidden_loss": ["block", "embedding"]}},
    }
    wanted = PARTS[part]
    recover = {
        f"{name}_{count // 1000}k": arms[name] | {"tokens": count, "args": args | arms[name].get("args", {})}
        for count in sorted(tokens, reverse=True)
        for name in wanted
    }
    depth = {"target": {"layers": 24}}
    width = {"target": {"share": 0.7, "axes": ["hidden_size", "intermediate_size"]}}
    return {
        "model": "quickstart",
        "dataset": {"path": str(output / "rows.jsonl")},
        "output": str(output / part),
        "score": {"samples": 128},
        "prune": width if part == "width" else depth,
        "rewrite": {"max_new_tokens": 128} if "kd_rewritten" in wanted else None,
        "recover": recover,
        "evaluate": {"tasks": tasks, "include_path": [str(output / "tasks")], "questions": [], "batch_size": 64},
    }


def lines(output: Path) -> list[dict]:
    """Return what every finished part found: one entry for each model and group of tasks."""
    told = []
    for part in PARTS:
        path = output / part / "report" / "recovery.json"
        if path.is_file():
            told += [line | {"part": part} for line in json.loads(path.read_text())["lines"]]
    return told


def table(output: Path) -> None:
    """Print recovery by part, model and group."""
    found = lines(output)
    groups = list(dict.fromkeys(line["group"] for line in found))
    print("| part | model | " + " | ".join(f"{group}, score (recovery %)" for group in groups) + " |")
    print("|---|---|" + "---|" * len(groups))
    for part, model in dict.fromkeys((line["part"], line["model"]) for line in found):
        own = {line["group"]: line["recovery"] for line in found if (line["part"], line["model"]) == (part, model)}
        cells = [cell(own[group]) for group in groups]
        print(f"| {part} | {model} | " + " | ".join(cells) + " |")


def cell(told: dict) -> str:
    """Return a score with its standard error, and the recovery."""
    score = told["score"]
    return f"{score['value']:.3f} ± {score['stderr']:.3f} ({100 * told['recovery']['value']:.1f})"


def table_of_nearness(output: Path, data: Path) -> None:
    """Print how near the models of finished parts are to the dense one."""
    known, answers = Ledger(output / "nearness.json"), {}
    for group, kinds in (("trained", TRAINED), ("held_out", HELD_OUT)):
        items = [(kind, item) for kind in kinds for item in read(data / "eval" / f"{kind}.jsonl")[:ANSWERS]]
        answers[group] = Dataset.from_list([row(kind, blank_filled(item)) for kind, item in items])
    print("| part | model | " + " | ".join(f"{name}, {group}" for group in answers for name in NEARNESS) + " |")
    print("|---|---|" + "---|" * (len(NEARNESS) * len(answers)))
    for part, model in dict.fromkeys((line["part"], line["model"]) for line in lines(output)):
        told = nearness(known, output, part, model, answers)
        print(f"| {part} | {model} | " + " | ".join(f"{value:.3f}" for value in told.values()) + " |")


def folder_of(part: Path, model: str) -> Path:
    """Return a model's checkpoint."""
    pruned = part / "prune" / "model"
    if model == "dense":
        return Path(read_provenance(pruned).dense["path"])
    return pruned if model == "pruned" else part / "recover" / model / "model"


def cells_of(answers: dict) -> list[str]:
    """Return the names of the numbers in a row."""
    return [f"eval_{group}_{name}" for group in answers for name in NEARNESS]


def nearness(known: Ledger, output: Path, part: str, model: str, answers: dict) -> dict[str, float]:
    """Return what KDTrainer's evaluation says of a model, measured once."""
    keys = {key: f"{part}/{model}/{key}" for key in cells_of(answers)}
    if not all(key in known for key in keys.values()):
        told = {"per_device_eval_batch_size": 16, "report_to": "none", "use_cpu": not torch.cuda.is_available()}
        args = trl_prune.KDConfig("unused", **told)
        student, dense = (str(folder_of(output / part, name)) for name in (model, "dense"))
        trainer = trl_prune.KDTrainer(student, args, None, answers["trained"], answers, teacher_model=dense)
        told = trainer.evaluate()
        known.update({keys[key]: told[key] for key in keys})
    return {key: known[name] for key, name in keys.items()}


def draw(output: Path) -> None:
    """Draw mean scores, and divergences from the dense model where they were measured, against training tokens."""
    found = [line for line in lines(output) if line["part"] != "width"]
    groups = list(dict.fromkeys(line["group"] for line in found))
    near = Ledger(output / "nearness.json")
    figure, rows = plt.subplots(2, len(groups), figsize=(4.2 * len(groups), 7), layout="constrained")
    for axes, group in zip(rows[0], groups, strict=True):
        scores = {(told["part"], told["model"]): told["recovery"]["score"] for told in found if told["group"] == group}
        dense = next(score for (_, model), score in scores.items() if model == "dense")
        axes.axhline(dense["value"], linestyle="--", linewidth=1, color="0.2", label="dense ± one standard error")
        axes.axhspan(dense["value"] - dense["stderr"], dense["value"] + dense["stderr"], color="0.2", alpha=0.1)
        draw_ways(axes, {of: score["value"] for of, score in scores.items()})
        axes.set(title=group, ylabel="mean score")
    for axes, group in zip(rows[1], ("trained", "held_out"), strict=False):
        parts = [tuple(key.split("/")) for key in near if key.endswith(f"eval_{group}_kl")]
        draw_ways(axes, {(part, model): near[f"{part}/{model}/{of}"] for part, model, of in parts if part != "width"})
        axes.axhline(0, linestyle="--", linewidth=1, color="0.2")
        axes.set(title=f"right answers, {group.replace('_', ' ')}", ylabel="KL to dense, nats a token")
    handles, labels = rows[0][0].get_legend_handles_labels()
    rows[1][-1].axis("off")
    rows[1][-1].legend(handles, labels, loc="center")
    figure.savefig(output / "recovery.png", dpi=130)


def draw_ways(axes: plt.Axes, values: dict[tuple[str, str], float]) -> None:
    """Draw each way's mean over seeds from the pruned model on, and each seed as a dot."""
    pruned = next((value for (_, model), value in values.items() if model == "pruned"), None)
    if pruned is None:
        return
    axes.axhline(pruned, linestyle="--", linewidth=1, color="0.6", label="pruned")
    ways: dict[str, dict[int, list[float]]] = {}
    for (_, model), value in values.items():
        way, _, count = model.rpartition("_")
        if way:
            ways.setdefault(way, {0: [pruned]}).setdefault(int(count[:-1]), []).append(value)
    for way, points in sorted(ways.items()):
        counts = sorted(points)
        (line,) = axes.plot(counts, [sum(points[count]) / len(points[count]) for count in counts], label=way)
        for count in counts[1:]:
            axes.plot([count] * len(points[count]), points[count], "o", color=line.get_color(), alpha=0.6)
    axes.set_xlabel("training tokens, thousands")


def main() -> None:
    """Run a part, or tell what the finished ones found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--tokens", type=int, nargs="+", default=[100_000])
    options.add_argument("--part", choices=PARTS)
    given = options.parse_args()
    if given.part is None:
        table(given.output)
        if given.data is not None:
            table_of_nearness(given.output, given.data)
        draw(given.output)
        return
    given.output.mkdir(parents=True, exist_ok=True)
    if not (given.output / "rows.jsonl").exists():
        write_rows(given.data, given.output / "rows.jsonl")
    tasks = write_tasks(given.data, given.output / "tasks")
    trl_prune.run(recipe(given.part, given.output, tasks, given.tokens))


if __name__ == "__main__":
    main()
