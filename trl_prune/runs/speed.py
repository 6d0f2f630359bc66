"""The pruned model timed against the dense one."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.evaluation.speed import compare_speed
from trl_prune.runs.context import Run


# In the pruned model's folder: what was timed, and for which models. It depends on the machine, so it is no output.
SPEED = "speed.json"
# A device that holds one model alone has room for the tasks, and their results must not be lost for want of a speed.
OUT_OF_MEMORY = (
    "the pruned model is not timed: the device has no room for it beside the dense one; evaluate.speed_seconds: 0 "
    "leaves the timing out"
)
logger = logging.getLogger(__name__)


def compare_with_dense_speed(run: Run, load: Callable[[], PreTrainedModel], folder: Path) -> dict | None:
    """Return the two models' speeds, timed once for these models; None if they cannot be or are not to be timed.

    The recovered models have the pruned one's shape, and so its speed. What was timed on a busy machine is not kept,
    so that the stage times it again as soon as it runs again.

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
    try:
        speed = compare_speed(run.load("dense"), load(), seconds)
    except torch.OutOfMemoryError:
        logger.warning(OUT_OF_MEMORY)
        return None
    if not speed.is_busy:
        write_json(path, {"key": key, "speed": asdict(speed)})
    return asdict(speed)
