"""Recipes over a tiny model, for tests of whole stages."""

import json
from pathlib import Path

from tests.conftest import ROWS, save_tiny
from trl_prune.recipe import Recipe, parse_recipe
from trl_prune.runs.context import Run


TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
metadata: {{trained: {trained}, capability: parity}}
"""


def recipe_values(folder: Path, name: str = "run") -> dict:
    """Write a tiny model, data and tasks, and return a recipe over them."""
    if not (folder / "dense").exists():
        save_tiny(folder / "dense")
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS * 2)))
        data = folder / "items.json"
        rows = [
            json.dumps({"question": f"Number {n} is", "choices": ["odd", "even"], "answer": n % 2}) for n in range(30)
        ]
        data.write_text("\n".join(rows))
        (folder / "tasks").mkdir()
        (folder / "tasks" / "one.yaml").write_text(TASK.format(data=data, trained="true"))
        (folder / "tasks" / "two.yaml").write_text(
            TASK.format(data=data, trained="false").replace("tiny_choice", "tiny_other")
        )
    args = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 1,
        "logging_steps": 2,
        "save_steps": 2,
        "gradient_checkpointing": False,
        "learning_rate": 1e-3,
        "max_length": 128,
    }
    return {
        "model": str(folder / "dense"),
        "dataset": {"path": str(folder / "rows.jsonl")},
        "output": str(folder / name),
        "dtype": "float32",
        "score": {"samples": 8, "batch_size": 2},
        "prune": {"target": {"layers": 2}},
        "rewrite": {"max_new_tokens": 6, "batch_size": 4},
        "recover": {
            "sft": {"data": "references", "args": args},
            "selfd": {"args": args, "peft": {"r": 2, "lora_dropout": 0.1}},
        },
        "evaluate": {
            "tasks": ["tiny_choice", "tiny_other"],
            "include_path": [str(folder / "tasks")],
            "questions": ["Why?"],
            "speed_seconds": 0,
        },
    }


def recipe(folder: Path, name: str = "run", **sections: object) -> Recipe:
    """Return the recipe with some sections replaced."""
    return parse_recipe(recipe_values(folder, name) | sections, "test")


def prune_run(folder: Path, **section: object) -> Run:
    """Return a run that only prunes, with a prune section."""
    return Run(recipe(folder, prune=section, recover={}, rewrite=None))


def kd_recipe(folder: Path, arms: dict[str, dict] | None = None, **section: object) -> Recipe:
    """Return a recipe whose arms distil from the teacher cache, unless they say otherwise.

    Args:
        folder: where the tiny model, data and tasks are written.
        arms: what each arm changes, by name; by default one arm, `kd`.
        section: keys of the `cache_teacher` section.
    """
    values = recipe_values(folder)
    args = values["recover"]["sft"]["args"]
    one = {"method": "kd", "data": "references", "args": args}
    values["recover"] = {
        name: one | arm | {"args": args | arm.get("args", {})} for name, arm in (arms or {"kd": {}}).items()
    }
    values["cache_teacher"] = {"batch_size": 4} | section
    del values["rewrite"]
    return parse_recipe(values, "test")
