"""score: the importance of every block, head, neuron, channel and expert."""

import time
from pathlib import Path

from trl_prune.checkpoints import write_json
from trl_prune.pruning.families import family_of
from trl_prune.recipe import Recipe
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.scoring import PARTIAL, SCORES, calibration_inputs, score_model
from trl_prune.runs.stage import Stage


BLOCK_INFLUENCE = "block_influence.json"


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Score the dense model's units, resuming from what an interrupted pass saved."""
    start = time.perf_counter()
    scores = score_model(run, run.load_for_scoring(run.dense_dir), folder / PARTIAL)
    scores.save(folder / SCORES)
    (folder / PARTIAL).unlink(missing_ok=True)
    influence = scores.layers.block_influence().tolist()
    write_json(folder / BLOCK_INFLUENCE, influence)
    metrics = {"positions": scores.layers.num_positions, "sizes": scores.sizes, "block_influence": influence}
    outputs = {"scores": SCORES, "block_influence": BLOCK_INFLUENCE}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start})


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model and of the calibration rows."""
    return calibration_inputs(run)


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the scores."""
    return {"score": run.recipe.score.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return what will be scored, on how many texts."""
    section = run.recipe.score
    rows = min(section.samples, len(run.dataset)) if section.dataset is None else section.samples
    axes = ", ".join(f"{size} {axis}" for axis, size in run.costs.sizes.items())
    return f"{axes}; on {rows} texts, {section.tokens} tokens for blocks"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the cut or the search needs scores."""
    return recipe.prune.needs_scores or recipe.search is not None


def check(run: Run) -> None:
    """Check that the model type is supported and that the calibration rows can be read."""
    family_of(run.config.model_type)
    if run.recipe.score.dataset is not None:
        run.rows(run.recipe.score.dataset)


STAGE = Stage(
    "score",
    inputs,
    settings,
    execute,
    describe,
    is_configured=is_configured,
    check=check,
)
