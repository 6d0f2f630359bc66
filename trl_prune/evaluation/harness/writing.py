"""Write lm-eval's own files: `results.json`, and `samples_TASK.jsonl` beside it."""

import importlib.metadata
import json
from pathlib import Path

from trl_prune.checkpoints import write_json, write_text
from trl_prune.evaluation.harness.settings import EvaluatedModel, EvaluationSettings
from trl_prune.evaluation.result_files import RESULTS, samples_file


def write_results(
    folder: Path, results: dict, model: EvaluatedModel, settings: EvaluationSettings, dtype: str
) -> list[str]:
    """Write a model's results as `lm_eval --log_samples` does, and return the names of the files of samples.

    What depends on the time and the machine is left out, so that equal results are equal files.

    Args:
        folder: where the files are written.
        results: of `evaluate_model`.
        model: the model.
        settings: how it was evaluated.
        dtype: in which it is loaded.
    """
    from lm_eval.loggers.utils import add_tokenizer_info
    from lm_eval.utils import handle_non_serializable, hash_string

    samples = results["samples"]
    for task, rows in samples.items():
        lines = (json.dumps(_sanitised(row), default=handle_non_serializable, ensure_ascii=False) for row in rows)
        write_text(folder / samples_file(task), "\n".join(lines) + "\n")
    values = {name: value for name, value in results.items() if name != "samples"} | {
        "config": _config(model, settings, dtype),
        "model_name": model.name,
        "lm_eval_version": importlib.metadata.version("lm_eval"),
        "transformers_version": importlib.metadata.version("transformers"),
        "task_hashes": {task: hash_string("".join(map(_hashes, rows))) for task, rows in samples.items()},
        "system_instruction": None,
        "chat_template_sha": _template_sha(model, settings),
        "fewshot_as_multiturn": True,
    }
    add_tokenizer_info(values, model)
    write_json(folder / RESULTS, json.loads(json.dumps(values, default=handle_non_serializable)))
    return [samples_file(task) for task in samples]


def _config(model: EvaluatedModel, settings: EvaluationSettings, dtype: str) -> dict:
    return {
        "model": "hf",
        "model_args": {"pretrained": model.name, "dtype": dtype},
        "model_dtype": f"torch.{dtype}",
        "batch_size": settings.batch_size,
        "limit": settings.limit,
        "limit_seed": settings.seed,
        "apply_chat_template": settings.apply_chat_template,
        "chat_template_args": settings.chat_template_kwargs,
        "think_end_token": settings.think_end_token,
        "gen_kwargs": None,
        "use_cache": None,
        "bootstrap_iters": 0,
    }


def _template_sha(model: EvaluatedModel, settings: EvaluationSettings) -> str | None:
    from lm_eval.utils import hash_string

    return hash_string(model.tokenizer.get_chat_template()) if settings.apply_chat_template else None


def _hashes(sample: dict) -> str:
    return sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"]


def _sanitised(sample: dict) -> dict:
    """Return a sample as lm-eval writes it: arguments by name, and answers as texts."""
    from lm_eval.utils import sanitize_list

    arguments = {
        f"gen_args_{index}": {f"arg_{position}": value for position, value in enumerate(values)}
        for index, values in enumerate(sample["arguments"])
    }
    texts = {name: sanitize_list(sample[name]) for name in ("resps", "filtered_resps")}
    return sample | texts | {"arguments": arguments, "target": str(sample["target"])}
