"""prune: the dense checkpoint becomes a smaller one."""

import json
import logging
import shutil
import time
from pathlib import Path

from trl_prune.checkpoints import prove_source, read_provenance, write_json, write_text
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import content_hash
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.keep import Keep, kept_sizes
from trl_prune.pruning.repairs import check_repairs, read_texts
from trl_prune.pruning.sizes.budget import stored_amounts
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.depth import check_depth, loses_attention
from trl_prune.pruning.surgery.passthrough import passthrough_recipe
from trl_prune.pruning.surgery.shards import peak_bytes
from trl_prune.pruning.surgery.text_tower import check_own_weights
from trl_prune.pruning.surgery.verification import verify_logits
from trl_prune.recipe import Recipe
from trl_prune.reporting.card import PICTURE, write_card
from trl_prune.reporting.plots.blocks import ANGULAR_DISTANCE
from trl_prune.reporting.plots.scores import draw_scores
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.effects import describe_search, effect_tasks, found_by_effect
from trl_prune.runs.evaluation import evaluation_values
from trl_prune.runs.pruning_plan import (
    chosen_by,
    chosen_keep,
    loaders_clause,
    planned_keep,
    recipe_ranking,
    recipe_sizes,
    sizes_per_round,
)
from trl_prune.runs.repairs import (
    FITS,
    check_run_maps,
    fitted_repairs,
    measures_as_repaired,
    omitted_repairs,
    recipe_repairs,
    run_maps_bytes,
)
from trl_prune.runs.scoring import calibration_inputs, calibration_settings, check_texts, gigabytes
from trl_prune.runs.scoring import needs as needs_of_scoring
from trl_prune.runs.search_space import load_scores
from trl_prune.runs.stage import Stage


KEEP, PASSTHROUGH = "keep.json", "passthrough.yaml"
NO_ATTENTION = "no block with attention is left"
logger = logging.getLogger("trl_prune")


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Choose the units to keep, fit the repairs and write the checkpoint."""
    start = time.perf_counter()
    keep = _stored_keep(folder) or chosen_keep(run, folder)
    write_json(folder / KEEP, keep)
    if loses_attention(run.config, keep):
        logger.warning("prune: %s", NO_ATTENTION)
    cut = Cut.of(run.config, keep)
    repairs = fitted_repairs(run, cut, folder / FITS)
    run.prune_to(folder / "model", keep, repairs)
    shutil.rmtree(folder / FITS, ignore_errors=True)
    if run.recipe.prune.check_logits:
        verify_logits(run.dense_dir, folder / "model", keep, exact=not repairs)
    metrics = {
        "removed": [layer for layer in range(run.costs.sizes[LAYERS]) if layer not in cut.keep[LAYERS]],
        "kept": kept_sizes(cut.keep),
        "cut": _cut_axes(cut),
        "repairs": [repair.record for repair in repairs],
        "dense": vars(run.size()),
        "pruned": vars(run.size(keep)),
    }
    if (found := found_by_effect(folder)) is not None:
        metrics["by_effect"] = found
    if run.folder.result("score") is not None:
        draw_scores(load_scores(run), cut.keep, recipe_ranking(run), folder / "model" / PICTURE)
    write_card(run, "pruned", folder / "model", metrics)
    outputs = {"model": "model", "keep": KEEP} | _write_passthrough(run, cut, folder)
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start})


def _stored_keep(folder: Path) -> Keep | None:
    """Return the plan that an interrupted attempt chose, if any."""
    path = folder / KEEP
    return json.loads(path.read_text()) if path.is_file() else None


def _cut_axes(cut: Cut) -> dict[str, list[int]]:
    """Return the dense and the pruned size of each axis that is cut."""
    kept = kept_sizes(cut.keep)
    return {axis: [cut.sizes[axis], size] for axis, size in kept.items() if size != cut.sizes[axis]}


def _write_passthrough(run: Run, cut: Cut, folder: Path) -> dict[str, str]:
    """Write the cut as a mergekit recipe if it removes only blocks, and return the outputs that this adds."""
    if cut.cuts_width:
        return {}
    is_root = read_provenance(run.dense_dir) is None and not Path(run.root["path"]).is_absolute()
    model = str(run.root["path"]) if is_root else str(run.dense_dir.resolve())
    dtype = str(run.config.dtype or "float32").removeprefix("torch.")
    write_text(folder / PASSTHROUGH, passthrough_recipe(model, cut.keep[LAYERS], dtype))
    return {"passthrough": PASSTHROUGH}


def check(run: Run) -> None:
    """Check that the cut and the repairs fit the model, and that transformers loads all of it."""
    if run.cut_config is not run.config:
        check_own_weights(run.config)
    prove_source(run.dense_dir)
    keep = planned_keep(run)
    cut = Cut.of(run.config, keep)
    if run.recipe.prune.keep is not None:  # otherwise the blocks are not known before the model is scored
        check_depth(run.config, keep)
    if run.recipe.prune.by.startswith("task:"):
        effect_tasks(run)
    if run.recipe.prune.rounds > 1:
        sizes_per_round(run)
    if run.recipe.score.is_generated:
        check_texts(run)
    _check_repairs(run, cut)
    _check_as_repaired(run)


def _check_repairs(run: Run, cut: Cut) -> None:
    if run.recipe.prune.repairs != "auto":
        try:
            check_repairs(run.recipe.prune.repairs, run.dense_dir, cut)
        except InputError as error:
            raise InputError(f"prune.repairs: {error}") from error


def _check_as_repaired(run: Run) -> None:
    try:
        if run.recipe.prune.as_repaired is True:
            check_run_maps(run)
    except InputError as error:
        raise InputError(f"prune.as_repaired measures with linear maps: {error}") from error


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model, and of the scores, texts, task or search that choose units."""
    section, hashes = run.recipe.prune, {"dense": run.dense_fingerprint}
    for stage in needs(run.recipe):
        hashes[stage] = run.folder.result_hash(stage)
    if _reads_texts(run):
        hashes |= calibration_inputs(run)
    if section.by.startswith("task:"):
        hashes["task"] = content_hash(effect_tasks(run))
    return hashes


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the cut."""
    values = {"prune": run.recipe.prune.model_dump(mode="json"), "seed": run.recipe.seed}
    if _reads_texts(run):
        values |= calibration_settings(run)
    if run.recipe.prune.by.startswith("task:"):
        values["evaluate"] = evaluation_values(run)
    return values


def _reads_texts(run: Run) -> bool:
    """Return whether this stage runs the dense model on calibration texts."""
    section = run.recipe.prune
    repairs = recipe_repairs(run, Cut.of(run.config, planned_keep(run)))
    return section.measured or section.rounds > 1 or read_texts(repairs)


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return the removed units of each axis, how they are chosen, the repairs, and the sizes before and after."""
    keep = planned_keep(run)
    cut = Cut.of(run.config, keep)
    axes = ", ".join(f"{axis} {dense} -> {kept}" for axis, (dense, kept) in _cut_axes(cut).items())
    clauses = [
        f"{axes or 'nothing removed'}, {chosen_by(run.recipe.prune, _cut_axes(cut), measures_as_repaired(run))}",
        _search(run, cut),
        _rounding(run),
        f"repairs: {', '.join(recipe_repairs(run, cut)) or 'none'}",
        NO_ATTENTION if loses_attention(run.config, keep) else "",
        omitted_repairs(run, cut),
        loaders_clause(run, kept_sizes(cut.keep)),
        _sizes(run, keep),
        f"up to {gigabytes(_memory(run))} of memory",
    ]
    return "; ".join(clause for clause in clauses if clause)


def _search(run: Run, cut: Cut) -> str:
    """Return what the search for blocks by their effect costs, as text; empty where there is none."""
    section = run.recipe.prune
    searched = section.measured and section.target is not None and LAYERS in _cut_axes(cut)
    return describe_search(run, len(cut.keep[LAYERS])) if searched else ""


def _rounding(run: Run) -> str:
    """Return the sizes that rounding to multiples changed, as text; empty for none."""
    if run.recipe.prune.target is None:
        return ""
    rounding = recipe_sizes(run).rounding
    changes = ", ".join(f"{axis} {exact} -> {rounded}" for axis, (exact, rounded) in rounding.items())
    return f"rounded to multiples: {changes}" if changes else ""


def _sizes(run: Run, keep: Keep) -> str:
    dense, pruned = run.size(), run.size(keep)
    pruned_bytes = run.dense_bytes * pruned.parameters / dense.parameters
    return (
        f"{dense.parameters / 1e6:,.1f}M -> {pruned.parameters / 1e6:,.1f}M parameters, "
        f"{gigabytes(run.dense_bytes)} -> {gigabytes(pruned_bytes)}, "
        f"{dense.flops_per_token / 1e9:.3g} -> {pruned.flops_per_token / 1e9:.3g} GFLOP a token"
    )


def _memory(run: Run) -> int:
    """Return the bytes that the stage needs: those of the model where it runs, else what surgery holds at once."""
    if _reads_texts(run):
        return needs_of_scoring(run).in_memory + (run_maps_bytes(run) if measures_as_repaired(run) else 0)
    return peak_bytes(size for _, size in stored_amounts(run.dense_dir).values())


def needs(recipe: Recipe) -> list[str]:
    """Return the search if it chooses the units, and the score stage if its scores do."""
    section = recipe.prune
    return ["search"] * (section.by == "search") + ["score"] * section.needs_scores


STAGE = Stage("prune", inputs, settings, execute, describe, needs=needs, check=check, panels=(ANGULAR_DISTANCE,))
