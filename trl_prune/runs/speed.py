"""The pruned model timed against the dense one."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.evaluation.speed import compare_speed
from trl_prune.runs.context import Run


# In the pruned model's folder: what was timed, and for which models. It depends on the machine, so it is no output.
SPEED = "speed.json"


def compare_with_dense_speed(run: Run, load: Callable[[], PreTrainedModel], folder: Path) -> dict | None:
    """Return the two models' speeds, timed once for these models; None if the recipe leaves them out.

    The recovered models have the pruned one's shape, and so its speed.

    Args:
        run: the run.
        load: returns its pruned model.
        folder: the folder that keeps what was timed.
    """
    seconds, path = run.recipe.evaluate.speed_seconds, folder / SPEED
    if seconds == 0:
        return None
    models = {"dense": run.dense_fingerprint, "pruned": run.model_hash("pruned")}
    key = models | {"dtype": run.dtype, "device": run.device, "seconds": seconds}
    if path.is_file() and (stored := json.loads(path.read_text()))["key"] == key:
        return stored["speed"]
    speed = asdict(compare_speed(run.load("dense"), load(), seconds))
    write_json(path, {"key": key, "speed": speed})
    return speed
