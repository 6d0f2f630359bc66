"""Which units the prune stage keeps: given by the recipe, found by the search, or chosen for a target."""

import shutil
from collections.abc import Collection, Mapping
from functools import lru_cache, reduce
from pathlib import Path

from trl_prune.checkpoints import load_config
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.rounds import Sizes, prune_in_rounds, round_sizes
from trl_prune.pruning.choosing.units import Ranking, choose_keep
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, compose_keep
from trl_prune.pruning.sizes.budget import Budget
from trl_prune.pruning.sizes.head_sizes import nearest_dividing_sizes, refusing_loaders
from trl_prune.pruning.sizes.targets import SizeTarget, TargetSizes, target_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.recipe import PruneSection
from trl_prune.runs.context import Run
from trl_prune.runs.effects import removed_by_effect
from trl_prune.runs.scoring import SCORES, score_checkpoint
from trl_prune.runs.search_space import load_scores, searched_keep


ROUNDS = "rounds"


@lru_cache(maxsize=1)
def recipe_sizes(run: Run) -> TargetSizes:
    """Return the sizes that the recipe's target leads to.

    Raises:
        InputError: an axis or a size that the model cannot have, or a budget that is too small.
    """
    section = run.recipe.prune
    target, budget = section.target, None
    if target.budgets:
        budget = Budget(**target.budgets, batch_size=target.batch_size, max_model_len=target.max_model_len)
    try:
        return target_sizes(SizeTarget(target.sizes, budget, target.axes, section.round_sizes), run.costs)
    except InputError as error:
        raise InputError(f"prune.target: {error}") from error


def chosen_by(section: PruneSection, axes: Collection[str], as_repaired: bool) -> str:
    """Return what chose the units that are kept, in words.

    Args:
        section: the recipe's.
        axes: the axes that are cut.
        as_repaired: whether the effect of removing blocks was measured with linear maps in their place.
    """
    if section.keep is not None:
        return "by hand"
    if section.by == "search":
        return "by the search"
    methods = [f"blocks by {section.by}{' as repaired' * as_repaired}"] * (LAYERS in axes)
    return " and ".join(methods + ["units by their scores"] * any(axis != LAYERS for axis in axes)) or "nothing"


def loaders_clause(run: Run, kept: Mapping[str, int]) -> str:
    """Return which loaders will not run the pruned model, and the nearest sizes that they run; empty for none.

    Args:
        run: the run.
        kept: units that are kept, by axis.
    """
    if not (loaders := refusing_loaders(kept, run.costs)):
        return ""
    refused = f"{' and '.join(loaders)} will not run it: head_dim is no longer hidden_size / num_attention_heads"
    if (nearest := nearest_dividing_sizes(kept, run.costs)) is None:
        return refused
    return f"{refused} (the nearest sizes that it runs: {', '.join(f'{axis} {n}' for axis, n in nearest.items())})"


def given_keep(run: Run) -> Keep | None:
    """Return the plan that the recipe or the search gives, or None where units are chosen for a target."""
    section = run.recipe.prune
    if section.keep is not None:
        return section.keep.plan
    return searched_keep(run) if section.by == "search" else None


def planned_keep(run: Run) -> Keep:
    """Return a plan of the final sizes before scores exist; it keeps the first units where they are chosen later.

    Raises:
        InputError: the target removes nothing, or the model cannot have it.
    """
    if (keep := given_keep(run)) is not None:
        return keep
    sizes = recipe_sizes(run)
    if not sizes.cut:
        raise InputError("prune.target keeps every unit of the model; name a smaller size or budget")
    return sizes.keep


def chosen_keep(run: Run, folder: Path) -> Keep:
    """Return the units to keep.

    Args:
        run: the run.
        folder: the stage's folder, for measurements and models from which an interrupted choice resumes.
    """
    if (keep := given_keep(run)) is not None:
        return keep
    section, sizes = run.recipe.prune, recipe_sizes(run).cut
    if section.rounds > 1:
        return keep_in_rounds(run, folder / ROUNDS)
    removed = removed_by_effect(run, sizes[LAYERS], folder) if section.measured and LAYERS in sizes else None
    if removed is not None and sizes.keys() == {LAYERS}:
        return {LAYERS: [layer for layer in range(run.costs.sizes[LAYERS]) if layer not in removed]}
    return choose_keep(load_scores(run), sizes, run.config, run.family, recipe_ranking(run, removed))


def recipe_ranking(run: Run, removed: list[int] | None = None) -> Ranking:
    """Return how the recipe ranks units; `removed` are the blocks that a measured effect chose."""
    section = run.recipe.prune
    layers_by = "angular_distance" if section.measured else section.by
    return Ranking(layers_by=layers_by, removed=removed, seed=run.recipe.seed, **section.ranking.model_dump())


def sizes_per_round(run: Run) -> list[Sizes]:
    """Return the sizes of all cut axes after each round.

    Raises:
        InputError: the format cannot express the sizes after some round.
    """
    try:
        return round_sizes(recipe_sizes(run).cut, run.costs, run.recipe.prune.rounds)
    except InputError as error:
        raise InputError(f"prune.rounds: {error}") from error


def keep_in_rounds(run: Run, folder: Path) -> Keep:
    """Return the units to keep when the model is scored again before each of several smaller cuts.

    The models between rounds are written to the folder, which is removed at the end. The last cut is returned only,
    composed with the earlier ones and counted in the dense model; the stage writes its checkpoint.
    """
    folder.mkdir(exist_ok=True)
    cuts: list[Keep] = []

    def score(model_dir: Path) -> Scores:
        return _round_scores(run, model_dir)

    def prune(model_dir: Path, scores: Scores, sizes: Sizes) -> Path:
        cuts.append(choose_keep(scores, sizes, load_config(model_dir), run.family, recipe_ranking(run)))
        target = folder / str(len(cuts))
        if len(cuts) < run.recipe.prune.rounds and not target.exists():
            prune_checkpoint(model_dir, target, cuts[-1], run.root)
        return target

    prune_in_rounds(run.dense_dir, sizes_per_round(run), score, prune)
    shutil.rmtree(folder)
    return reduce(lambda first, second: compose_keep(first, second, run.costs.sizes[LAYERS]), cuts)


def _round_scores(run: Run, model_dir: Path) -> Scores:
    """Return the scores of the model that a round starts from; those of an interrupted run are read."""
    if model_dir == run.dense_dir:
        return Scores.load(run.folder.output("score", "scores"))
    path = model_dir / SCORES
    if not path.is_file():
        score_checkpoint(run, model_dir, model_dir).save(path)
    return Scores.load(path)
