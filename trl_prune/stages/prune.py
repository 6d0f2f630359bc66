"""prune: the dense checkpoint becomes a smaller one."""

import json
import time
from pathlib import Path

from tqdm.auto import tqdm

from trl_prune.artifacts import Outcome
from trl_prune.checkpoints import write_json
from trl_prune.context import Run
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS, family_of
from trl_prune.pruning.importance import LayerScores, layers_skipped, mean_loss
from trl_prune.pruning.keep import Keep, complete_keep
from trl_prune.pruning.selection import SELECTIONS, greedy_removal
from trl_prune.pruning.surgery import prune_checkpoint
from trl_prune.stages.candidates import found_keep
from trl_prune.stages.score import calibration
from trl_prune.stages.score import inputs as score_inputs
from trl_prune.stages.stage import Stage


REMOVED = "removed.json"


def work(run: Run, unit: str, folder: Path) -> Outcome:  # noqa: ARG001
    """Choose the blocks that stay and write the checkpoint."""
    start = time.perf_counter()
    removed = chosen(run, folder)
    keep = (
        found_keep(run)
        if run.recipe.prune.by == "search"
        else {LAYERS: [index for index in range(run.config.num_hidden_layers) if index not in removed]}
    )
    prune_checkpoint(run.dense_dir, folder / "model", keep, run.root)
    metrics = {"removed": removed, "keep": keep, "dense": vars(run.size()), "pruned": vars(run.size(keep))}
    return Outcome({"model": "model"}, metrics, {"seconds": time.perf_counter() - start})


def chosen(run: Run, folder: Path) -> list[int]:
    """Return the blocks to remove."""
    section = run.recipe.prune
    if section.by == "search":
        kept = found_keep(run)[LAYERS]
        return [index for index in range(run.config.num_hidden_layers) if index not in kept]
    if section.keep is not None:
        return [index for index in range(run.config.num_hidden_layers) if index not in section.keep.num_hidden_layers]
    count = run.config.num_hidden_layers - section.target.layers
    if count == 0:
        return []
    if section.by == "perplexity":
        return sorted(removed_by_perplexity(run, folder, count))
    return SELECTIONS[section.by](LayerScores.load(run.folder.output("score", "scores")), count)


def removed_by_perplexity(run: Run, folder: Path, count: int) -> list[int]:
    """Return blocks removed one after the other, each the one whose loss costs least; saved after each."""
    path = folder / REMOVED
    removed = json.loads(path.read_text()) if path.is_file() else []
    batches, model = calibration(run), run.load("dense")

    def loss_without(indices: list[int]) -> float:
        with layers_skipped(model, indices):
            return mean_loss(model, batches)

    for _ in tqdm(range(count), desc="prune by perplexity", initial=len(removed), unit="block"):
        if len(removed) == count:
            break
        removed.append(greedy_removal(loss_without, run.config.num_hidden_layers, removed))
        write_json(path, removed)
    return removed


def planned_keep(run: Run) -> Keep:
    """Return a cut of the planned size; which blocks it keeps is known only after scoring."""
    section = run.recipe.prune
    if section.keep is not None:
        return {LAYERS: section.keep.num_hidden_layers}
    if section.by == "search":
        return found_keep(run)
    return {LAYERS: list(range(section.target.layers))}


def check(run: Run) -> None:
    """Check that the cut fits the model."""
    layers, section = run.config.num_hidden_layers, run.recipe.prune
    if section.target is not None and section.target.layers > layers:
        raise InputError(
            f"prune.target.layers is {section.target.layers}; allowed: 1..{layers} (the model has {layers})"
        )
    complete_keep(planned_keep(run), run.config, family_of(run.config.model_type))


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model, and the scores or texts that choose."""
    named = {"dense": run.dense_fingerprint}
    section = run.recipe.prune
    if section.by == "search":
        return named | {"search": run.folder.result_hash("search")}
    if section.keep is None and section.by in SELECTIONS:
        named["score"] = run.folder.result_hash("score")
    if section.keep is None and section.by not in SELECTIONS:
        named |= score_inputs(run, "")
    return named


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the cut."""
    told = {"prune": run.recipe.prune.model_dump(mode="json")}
    if run.recipe.prune.by == "perplexity":
        told |= {"score": run.recipe.score.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}
    return told


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say how many blocks go, by what, and what that saves."""
    keep = planned_keep(run)
    layers, kept = run.config.num_hidden_layers, len(keep[LAYERS])
    dense, pruned = run.size(), run.size(keep)
    gigabytes = run.dense_bytes / 1e9
    sizes = (
        f"{dense.parameters / 1e6:,.1f}M -> {pruned.parameters / 1e6:,.1f}M parameters, "
        f"{gigabytes:.3g} -> {gigabytes * pruned.parameters / dense.parameters:.3g} GB, "
        f"{dense.flops_per_token / 1e9:.3g} -> {pruned.flops_per_token / 1e9:.3g} GFLOP a token"
    )
    return f"{layers} -> {kept} blocks, {_which(run, layers - kept)}; {sizes}"


def _which(run: Run, count: int) -> str:
    section = run.recipe.prune
    if section.keep is not None:
        return "chosen by hand"
    if section.by == "search":
        return "what the search finds"
    scored = run.folder.result("score") is not None and section.by in SELECTIONS
    if not scored:
        return f"{count} by {section.by}"
    removed = SELECTIONS[section.by](LayerScores.load(run.folder.output("score", "scores")), count) if count else []
    return f"removing {removed} by {section.by}"


STAGE = Stage("prune", inputs, settings, work, plan, check=check)
