"""Results as lm-eval writes them: by its own code on tiny models, and by hand where a test wants certain scores."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import tiny_model
from trl_prune.evaluation.task_metrics import PERPLEXITIES


DATE = "2026-01-31T12-00-00.000000"
TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "tiny_generated": {
        "output_type": "generate_until",
        "doc_to_target": "{{question}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
        "metadata": {"version": 2.0, "capability": "copying"},
    },
    "tiny_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}


def write_tasks(folder: Path) -> None:
    """Write three small tasks, one of each output type, and a group of a group."""
    rows = [{"question": f"Number {n // 2} is", "choices": ["odd", "even", "big"], "answer": n % 2} for n in range(12)]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name} | shared | task))
    again = {"task": "tiny_again"} | shared | TASKS["tiny_choice"]
    (folder / "tiny_again.yaml").write_text(json.dumps(again))
    inner = {"group": "tiny_inner", "task": ["tiny_choice", "tiny_again"]}
    (folder / "tiny_inner.yaml").write_text(json.dumps(inner))
    outer = {"group": "tiny_outer", "task": ["tiny_inner", "tiny_generated", "tiny_text"]}
    (folder / "tiny_outer.yaml").write_text(json.dumps(outer))


def run_lm_eval(tasks_dir: Path, output: Path, tokenizer: object, seed: int = 0, **settings: object) -> dict:
    """Evaluate a tiny model with lm-eval, which writes its files; return its results."""
    from lm_eval import evaluator
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(output))
    lm = HFLM(pretrained=tiny_model("llama", seed), tokenizer=tokenizer, batch_size=4, device="cpu")
    add_env_info, evaluator.add_env_info = evaluator.add_env_info, lambda _: None
    try:
        results = evaluator.simple_evaluate(
            model=lm,
            tasks=settings.pop("tasks", ["tiny_outer"]),
            task_manager=TaskManager(include_path=str(tasks_dir), include_defaults=False),
            evaluation_tracker=tracker,
            bootstrap_iters=0,
            log_samples=True,
            **settings,
        )
    finally:
        evaluator.add_env_info = add_env_info
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return results


def write_results(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    *,
    kinds: Mapping[str, str] | None = None,
    chances: Mapping[str, float] | None = None,
    order: Sequence[int] | None = None,
    model: str = "model",
    changes: Mapping[str, object] | None = None,
    sample_changes: Mapping[str, object] | None = None,
) -> Path:
    """Write results by hand, one item a score, and return the results file.

    Args:
        folder: where to.
        scores: of each task's items.
        kinds: output types, by task, where they are not `multiple_choice`.
        chances: the metadata's chance, by task.
        order: in which items come, by position.
        model: the model's name.
        changes: keys of the results that are replaced.
        sample_changes: keys of all samples that are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs, higher = {}, {}
    for task, values in scores.items():
        output_type = (kinds or {}).get(task, "multiple_choice")
        metric = "exact_match" if output_type == "generate_until" else "acc"
        metadata = {"version": 1.0, "chance": (chances or {}).get(task, 0.0), "capability": task}
        configs[task] = {"task": task, "output_type": output_type, "metadata": metadata}
        higher[task] = {metric: metric not in PERPLEXITIES}
        lines = [_sample(number, float(values[number]), metric) for number in order or range(len(values))]
        text = "\n".join(json.dumps(line | (sample_changes or {})) for line in lines)
        (folder / f"samples_{task}_{DATE}.jsonl").write_text(text + "\n")
    results = {
        "results": {task: {} for task in scores},
        "group_subtasks": {},
        "configs": configs,
        "versions": dict.fromkeys(scores, 1.0),
        "n-shot": dict.fromkeys(scores, 0),
        "higher_is_better": higher,
        "config": {"model_args": f"pretrained={model}", "model_dtype": "torch.float32", "limit": None},
        "model_name": model,
    }
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(results | dict(changes or {})))
    return path


def _sample(number: int, score: float, metric: str) -> dict:
    is_generated = metric == "exact_match"
    answer = "right" if score else "wrong"
    arguments = {f"gen_args_{choice}": {"arg_0": f"Question {number}?", "arg_1": f" {choice}"} for choice in range(2)}
    return {
        "doc_id": number,
        "doc": {"number": number},
        "target": "0",
        "arguments": {"gen_args_0": arguments["gen_args_0"]} if is_generated else arguments,
        "resps": [[answer]] if is_generated else [[["-1.0", "True"]], [["-2.0" if score else "-0.5", "False"]]],
        "filtered_resps": [answer],
        "filter": "none",
        "metrics": [metric],
        "doc_hash": hashlib.sha256(str(number).encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(f"prompt {number}".encode()).hexdigest(),
        metric: score,
    }
