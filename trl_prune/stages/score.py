"""score: the importance of every block, head, neuron, channel and expert."""

import time
from pathlib import Path

from trl_prune.checkpoints import write_json
from trl_prune.pruning.families import family_of
from trl_prune.recipe import Recipe
from trl_prune.runs import own_answers
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.scoring import (
    SCORES,
    calibration_inputs,
    calibration_settings,
    check_texts,
    check_way,
    describe_texts,
    describe_way,
    remove_partial,
    score_checkpoint,
)
from trl_prune.runs.stage import Stage


BLOCK_INFLUENCE = "block_influence.json"


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Score the dense model's units, resuming from what an interrupted pass saved."""
    start = time.perf_counter()
    scores = score_checkpoint(run, run.dense_dir, folder)
    scores.save(folder / SCORES)
    remove_partial(folder)
    influence = scores.layers.block_influence().tolist()
    write_json(folder / BLOCK_INFLUENCE, influence)
    metrics = {"positions": scores.layers.num_positions, "sizes": scores.sizes, "block_influence": influence}
    metrics |= {"answers": own_answers.summary(run)} if run.recipe.score.is_generated else {}
    outputs = {"scores": SCORES, "block_influence": BLOCK_INFLUENCE}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start})


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model and of the calibration rows."""
    return calibration_inputs(run)


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the scores."""
    return calibration_settings(run) | {"seed": run.recipe.seed}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return what will be scored, on how many texts."""
    axes = ", ".join(f"{size} {axis}" for axis, size in run.costs.sizes.items())
    return f"{axes}; on {describe_texts(run)}, {run.recipe.score.tokens} tokens for blocks; {describe_way(run)}"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the cut or the search needs scores."""
    return recipe.prune.needs_scores or recipe.search is not None


def check(run: Run) -> None:
    """Check that the model type is supported, that it can be scored as asked, and the calibration rows."""
    family_of(run.config.model_type)
    check_way(run)
    check_texts(run)


STAGE = Stage(
    "score",
    inputs,
    settings,
    execute,
    describe,
    is_configured=is_configured,
    check=check,
    keeps=(own_answers.ANSWERS,),
)
