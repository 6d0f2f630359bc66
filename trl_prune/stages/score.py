"""score: how much each block, head, neuron, channel and expert matters."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.artifacts import Outcome
from trl_prune.checkpoints import write_json
from trl_prune.context import Run, dataset_fingerprint
from trl_prune.data.formatting import calibration_batches, sample
from trl_prune.pruning.families import family_of
from trl_prune.pruning.scores import Scores, empty_scores, score
from trl_prune.stages.stage import Stage


SCORES, PARTIAL = "scores.safetensors", "partial.safetensors"
SECONDS_BETWEEN_SAVES = 20.0


def calibration(run: Run) -> list[dict[str, torch.Tensor]]:
    """Return the recipe's calibration batches."""
    section = run.recipe.score
    rows = run.rows(section.dataset) if section.dataset else run.dataset
    drawn = sample(rows, section.samples, run.recipe.seed)
    return calibration_batches(drawn, run.tokenizer, section.batch_size, section.max_length)


def work(run: Run, unit: str, folder: Path) -> Outcome:  # noqa: ARG001
    """Score the dense model's units, going on from what an interrupted pass saved."""
    start = time.perf_counter()
    scores = score_model(run, run.load_for_scoring(run.dense_dir), folder / PARTIAL)
    scores.save(folder / SCORES)
    (folder / PARTIAL).unlink(missing_ok=True)
    influence = scores.layers.block_influence().tolist()
    write_json(folder / "block_influence.json", influence)
    metrics = {"positions": scores.layers.positions, "sizes": scores.sizes, "block_influence": influence}
    seconds = time.perf_counter() - start
    return Outcome({"scores": SCORES, "block_influence": "block_influence.json"}, metrics, {"seconds": seconds})


def score_model(run: Run, model: PreTrainedModel, partial: Path) -> Scores:
    """Return a model's scores on the calibration texts.

    Args:
        run: the recipe at work.
        model: the dense model, or one on the way from it.
        partial: where to keep what an interrupted pass is to go on from.
    """
    batches = calibration(run)
    facts = {"calibration": inputs(run, "")["calibration"], "seed": run.recipe.seed}
    scores = Scores.load(partial) if partial.is_file() else empty_scores(model, facts)
    bar = tqdm(batches[scores.batches :], "score", len(batches), initial=scores.batches, unit="batch")
    return score(model, bar, run.recipe.score.tokens, scores, _saver(partial))


def _saver(path: Path) -> Callable[[Scores], None]:
    last = time.monotonic()

    def save(scores: Scores) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_SAVES:
            scores.save(path)
            last = time.monotonic()

    return save


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model and the calibration rows."""
    section = run.recipe.score.dataset
    rows = dataset_fingerprint(run.rows(section)) if section else run.dataset_fingerprint
    return {"dense": run.dense_fingerprint, "calibration": rows}


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the scores."""
    return {"score": run.recipe.score.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say what will be scored."""
    section = run.recipe.score
    rows = min(section.samples, len(run.dataset)) if section.dataset is None else section.samples
    axes = ", ".join(f"{size} {axis}" for axis, size in run.costs.sizes.items())
    return f"{axes}; on {rows} texts, {section.tokens} tokens for blocks"


def check(run: Run) -> None:
    """Check that the model's family is known and the calibration rows can be read."""
    family_of(run.config.model_type)
    if run.recipe.score.dataset is not None:
        run.rows(run.recipe.score.dataset)


STAGE = Stage("score", inputs, settings, work, plan, check=check)
