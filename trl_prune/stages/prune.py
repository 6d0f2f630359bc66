"""prune: the dense checkpoint becomes a smaller one."""

import json
import shutil
import time
from pathlib import Path

from trl_prune.checkpoints import read_provenance, write_json, write_text
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import content_hash
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.keep import Keep, kept_sizes
from trl_prune.pruning.repairs import check_repairs
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.passthrough import passthrough_recipe
from trl_prune.pruning.surgery.verification import verify_logits
from trl_prune.reporting.card import PICTURE, write_card
from trl_prune.reporting.plots.scores import draw_scores
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import evaluation_settings
from trl_prune.runs.pruning_plan import (
    chosen_keep,
    effect_task,
    lost_to_rounding,
    planned_keep,
    ranking,
    round_sizes,
    wanted_sizes,
)
from trl_prune.runs.repairs import fitted_repairs, left_out, reads_texts, wanted_repairs
from trl_prune.runs.scoring import calibration_inputs
from trl_prune.runs.search_space import scores_of
from trl_prune.runs.stage import Stage


CHOSEN, REPAIRS, PASSTHROUGH = "keep.json", "repairs", "passthrough.yaml"


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Choose the units that stay, repair what stays and write the checkpoint."""
    start = time.perf_counter()
    keep = _chosen_before(folder) or chosen_keep(run, folder)
    write_json(folder / CHOSEN, keep)
    cut = Cut.of(run.config, keep)
    repairs = fitted_repairs(run, cut, folder / REPAIRS)
    prune_checkpoint(run.dense_dir, folder / "model", keep, run.root, repairs)
    shutil.rmtree(folder / REPAIRS, ignore_errors=True)
    if run.recipe.prune.check_logits:
        verify_logits(run.dense_dir, folder / "model", keep, exact=not repairs)
    removed = [layer for layer in range(run.config.num_hidden_layers) if layer not in cut.keep[LAYERS]]
    metrics = {
        "removed": removed,
        "kept": kept_sizes(cut.keep),
        "cut": _cut_axes(cut),
        "repairs": [repair.record for repair in repairs],
        "dense": vars(run.size()),
        "pruned": vars(run.size(keep)),
    }
    if run.folder.result("score") is not None:
        draw_scores(scores_of(run), cut.keep, ranking(run), folder / "model" / PICTURE)
    write_card(folder / "model", run.dense_dir, _sizes(metrics), f"Chosen: {_chosen_by(run, cut)}.")
    outputs = {"model": "model", "keep": CHOSEN} | _passthrough(run, cut, folder)
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start})


def _chosen_before(folder: Path) -> Keep | None:
    path = folder / CHOSEN
    return json.loads(path.read_text()) if path.is_file() else None


def _cut_axes(cut: Cut) -> dict[str, list[int]]:
    """Return the sizes before and after of each axis that loses something."""
    kept = kept_sizes(cut.keep)
    return {axis: [cut.sizes[axis], size] for axis, size in kept.items() if size != cut.sizes[axis]}


def _sizes(metrics: dict) -> dict[str, tuple[float, float]]:
    names = {"parameters": "parameters", "flops_per_token": "FLOP a token"}
    return {told: (metrics["dense"][name], metrics["pruned"][name]) for name, told in names.items()}


def _passthrough(run: Run, cut: Cut, folder: Path) -> dict[str, str]:
    """Write the same cut as a mergekit recipe, where mergekit can make it."""
    if cut.is_width:
        return {}
    is_root = read_provenance(run.dense_dir) is None and not Path(run.root["path"]).is_absolute()
    name = str(run.root["path"]) if is_root else str(run.dense_dir.resolve())
    dtype = str(run.config.dtype or "float32").removeprefix("torch.")
    write_text(folder / PASSTHROUGH, passthrough_recipe(name, cut.keep[LAYERS], dtype))
    return {"passthrough": PASSTHROUGH}


def check(run: Run) -> None:
    """Check that the cut and the repairs fit the model."""
    cut = Cut.of(run.config, planned_keep(run))
    if run.recipe.prune.by.startswith("task:"):
        effect_task(run)
    if run.recipe.prune.rounds > 1:
        round_sizes(run, wanted_sizes(run))
    if run.recipe.prune.repairs != "auto":
        try:
            check_repairs(run.recipe.prune.repairs, run.dense_dir, cut)
        except InputError as error:
            raise InputError(f"prune.repairs: {error}") from error


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model, and the scores, texts or search that choose."""
    named = {"dense": run.dense_fingerprint}
    section = run.recipe.prune
    if section.by == "search":
        named["search"] = run.folder.result_hash("search")
    if section.needs_scores:
        named["score"] = run.folder.result_hash("score")
    if _reads_texts(run):
        named |= calibration_inputs(run)
    if section.by.startswith("task:"):
        named["task"] = content_hash(effect_task(run))
    return named


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the cut."""
    told = {"prune": run.recipe.prune.model_dump(mode="json"), "seed": run.recipe.seed}
    if _reads_texts(run):
        told |= {"score": run.recipe.score.model_dump(mode="json"), "dtype": run.dtype}
    if run.recipe.prune.by.startswith("task:"):
        told["evaluate"] = vars(evaluation_settings(run))
    return told


def _reads_texts(run: Run) -> bool:
    """Return whether calibration texts go through the dense model in this stage."""
    section = run.recipe.prune
    repairs = wanted_repairs(run, Cut.of(run.config, planned_keep(run)))
    return section.measured or section.rounds > 1 or reads_texts(repairs)


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say what goes of each axis, by what, and what that saves."""
    keep = planned_keep(run)
    cut = Cut.of(run.config, keep)
    dense, pruned = run.size(), run.size(keep)
    gigabytes = run.dense_bytes / 1e9
    sizes = (
        f"{dense.parameters / 1e6:,.1f}M -> {pruned.parameters / 1e6:,.1f}M parameters, "
        f"{gigabytes:.3g} -> {gigabytes * pruned.parameters / dense.parameters:.3g} GB, "
        f"{dense.flops_per_token / 1e9:.3g} -> {pruned.flops_per_token / 1e9:.3g} GFLOP a token"
    )
    axes = ", ".join(f"{axis} {before} -> {after}" for axis, (before, after) in _cut_axes(cut).items())
    repairs = ", ".join(wanted_repairs(run, cut)) or "none"
    without = left_out(run, cut)
    told = [
        f"{axes or 'nothing goes'}, {_chosen_by(run, cut)}",
        lost_to_rounding(run),
        f"repairs: {repairs}",
        without,
        sizes,
    ]
    return "; ".join(part for part in told if part)


def _chosen_by(run: Run, cut: Cut) -> str:
    section = run.recipe.prune
    if section.keep is not None:
        return "chosen by hand"
    if section.by == "search":
        return "what the search finds"
    blocks = len(cut.keep[LAYERS]) < run.config.num_hidden_layers
    ways = [f"blocks by {section.by}"] * blocks + ["units by what they carry"] * cut.is_width
    return " and ".join(ways)


STAGE = Stage("prune", inputs, settings, work, plan, check=check)
