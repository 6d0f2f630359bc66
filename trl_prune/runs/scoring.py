"""Score a model's units on the recipe's calibration texts."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.data.batches import calibration_batches, sample
from trl_prune.pruning.importance.scores import Scores, empty_scores, score
from trl_prune.runs.context import Run, dataset_fingerprint


SCORES, PARTIAL = "scores.safetensors", "partial.safetensors"
SECONDS_BETWEEN_SAVES = 20.0


def calibration(run: Run) -> list[dict[str, torch.Tensor]]:
    """Return the recipe's calibration batches, dicts of `(batch, tokens)` tensors."""
    section = run.recipe.score
    rows = run.rows(section.dataset) if section.dataset else run.dataset
    drawn = sample(rows, section.samples, run.recipe.seed)
    return calibration_batches(drawn, run.tokenizer, section.batch_size, section.max_length)


def calibration_inputs(run: Run) -> dict[str, str]:
    """Return the fingerprints of the dense model and of the calibration rows."""
    section = run.recipe.score.dataset
    rows = dataset_fingerprint(run.rows(section)) if section else run.dataset_fingerprint
    return {"dense": run.dense_fingerprint, "calibration": rows}


def score_model(run: Run, model: PreTrainedModel, partial: Path) -> Scores:
    """Return a model's scores on the calibration texts.

    Args:
        run: the run, for its calibration texts.
        model: the dense model, or an intermediate one when pruning in rounds.
        partial: file in which partial sums are saved, so that an interrupted pass resumes.
    """
    batches = calibration(run)
    metadata = {"calibration": calibration_inputs(run)["calibration"], "seed": run.recipe.seed}
    scores = Scores.load(partial) if partial.is_file() else empty_scores(model, metadata)
    bar = tqdm(batches[scores.num_batches :], "score", len(batches), initial=scores.num_batches, unit="batch")
    return score(model, bar, run.recipe.score.tokens, scores, _saver(partial))


def _saver(path: Path) -> Callable[[Scores], None]:
    last = time.monotonic()

    def save(scores: Scores) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_SAVES:
            scores.save(path)
            last = time.monotonic()

    return save
