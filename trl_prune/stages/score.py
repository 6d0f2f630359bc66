"""score: how much each block, head, neuron, channel and expert matters."""

import time
from pathlib import Path

from trl_prune.checkpoints import write_json
from trl_prune.pruning.families import family_of
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.scoring import PARTIAL, SCORES, calibration_inputs, score_model
from trl_prune.runs.stage import Stage


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Score the dense model's units, going on from what an interrupted pass saved."""
    start = time.perf_counter()
    scores = score_model(run, run.load_for_scoring(run.dense_dir), folder / PARTIAL)
    scores.save(folder / SCORES)
    (folder / PARTIAL).unlink(missing_ok=True)
    influence = scores.layers.block_influence().tolist()
    write_json(folder / "block_influence.json", influence)
    metrics = {"positions": scores.layers.positions, "sizes": scores.sizes, "block_influence": influence}
    seconds = time.perf_counter() - start
    return StageOutput({"scores": SCORES, "block_influence": "block_influence.json"}, metrics, {"seconds": seconds})


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model and of the calibration rows."""
    return calibration_inputs(run)


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
