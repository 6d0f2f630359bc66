"""Which units a recipe keeps: by hand, by the scores, by trying, in rounds, or what the search found."""

import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.checkpoints import load_config
from trl_prune.recipe import Target
from trl_prune.runs.context import Run
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import Harness, find_tasks
from trl_prune.pruning.sizes.budget import Budget
from trl_prune.pruning.choosing.effects import MEASURES
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS
from trl_prune.pruning.sizes.grid import first_units, sizes_of
from trl_prune.pruning.importance.layers import layers_skipped
from trl_prune.pruning.choosing.rounds import prune_in_rounds, size_schedule
from trl_prune.pruning.keep import Keep, check_axis, compose_keep
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.choosing.blocks import Loss, REMOVALS, cached_loss
from trl_prune.pruning.choosing.units import Ranking, choose_keep, heads_a_group
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.sizes.targets import shrunk_sizes
from trl_prune.runs.search_space import found_keep, scores_of
from trl_prune.runs.evaluation import mean_score
from trl_prune.runs.scoring import PARTIAL, SCORES, calibration, score_model


EFFECTS, ROUNDS = "effects.json", "rounds"


def chosen_keep(run: Run, folder: Path) -> Keep:
    """Return the units that stay.

    Args:
        run: the recipe at work.
        folder: the stage's, for what a broken search for blocks goes on from.
    """
    if (given := given_keep(run)) is not None:
        return given
    section, sizes = run.recipe.prune, wanted_sizes(run)
    if section.rounds > 1:
        return keep_in_rounds(run, sizes, folder / ROUNDS)
    removed = removed_by_effect(run, sizes[LAYERS], folder) if section.measured and LAYERS in sizes else None
    if removed is not None and sizes.keys() == {LAYERS}:
        return {LAYERS: [layer for layer in range(run.config.num_hidden_layers) if layer not in removed]}
    return choose_keep(scores_of(run), sizes, run.config, run.costs.family, ranking(run, removed))


def given_keep(run: Run) -> Keep | None:
    """Return the plan that was made elsewhere, by hand or by the search; None where this stage chooses."""
    section = run.recipe.prune
    if section.keep is not None:
        return section.keep.plan
    return found_keep(run) if section.by == "search" else None


def ranking(run: Run, removed: list[int] | None = None) -> Ranking:
    """Return how the recipe ranks units."""
    section = run.recipe.prune
    layers_by = "angular_distance" if section.measured else section.by
    return Ranking(layers_by=layers_by, removed=removed, seed=run.recipe.seed, **section.ranking.model_dump())


def wanted_sizes(run: Run) -> dict[str, int]:
    """Return how many units of each axis that is cut stay.

    Raises:
        InputError: an axis the model does not have, a size that is none of it, or a budget that cannot be met.
    """
    target, costs = run.recipe.prune.target, run.costs
    if target.budgets:
        sizes = budgeted_sizes(run, run.recipe.prune.round_sizes)
    else:
        for axis, size in target.sizes.items():
            check_axis(axis, costs.sizes, run.config, costs.family)
            if size > costs.sizes[axis]:
                key = "layers" if axis == LAYERS else axis
                most = costs.sizes[axis]
                raise InputError(f"prune.target.{key} is {size}; allowed: 1..{most} (the model has {most})")
        sizes = sizes_of(target.sizes, costs) or costs.sizes | target.sizes
        heads, groups = sizes[HEADS], sizes.get(GROUPS, 1)
        heads_a_group(heads, groups, costs.sizes[HEADS] // costs.sizes.get(GROUPS, 1))
    return {axis: size for axis, size in sizes.items() if size != costs.sizes[axis]}


def budgeted_sizes(run: Run, rounded: bool) -> dict[str, int]:
    """Return the sizes of all axes within the target's budget."""
    target = run.recipe.prune.target
    return shrunk_sizes(run.costs, budget_of(run, target), target.axes, rounded)


def lost_to_rounding(run: Run) -> str:
    """Say what rounding to multiples took from the budget, or nothing where it took nothing."""
    section = run.recipe.prune
    if section.target is None or not section.target.budgets or not section.round_sizes:
        return ""
    rounded, exact = budgeted_sizes(run, True), budgeted_sizes(run, False)
    told = [f"{axis} {exact[axis]} -> {size}" for axis, size in rounded.items() if size != exact[axis]]
    return f"rounded to multiples: {', '.join(told)}" if told else ""


def budget_of(run: Run, target: Target) -> Budget:
    """Return a target's budget."""
    ((name, value),) = target.budgets.items()
    if name == "share":
        name, value = "parameters", value * run.costs.count(run.costs.sizes, range(run.costs.sizes[LAYERS]))
    return Budget(name, 0, value, target.batch, target.context)


def planned_keep(run: Run) -> Keep:
    """Return a plan of the size that the chosen one will have; which units it names is known only after scoring."""
    if (given := given_keep(run)) is not None:
        return given
    sizes = wanted_sizes(run)
    if not sizes:
        raise InputError("prune.target keeps every unit of the model; name a smaller size or budget")
    return first_units(run.costs.sizes | sizes, run.costs)


def removed_by_effect(run: Run, layers: int, folder: Path) -> list[int]:
    """Return the blocks whose removal costs least; every measurement is kept, so that a broken search goes on."""
    how, total = run.recipe.prune.how, run.config.num_hidden_layers
    count = total - layers
    trials = {"single": total, "contiguous": layers + 1, "greedy": sum(total - done for done in range(count))}
    known = cached_loss(measured_loss(run, run.load_for_scoring(run.dense_dir)), folder / EFFECTS)
    with tqdm(total=trials[how], desc=f"prune by {run.recipe.prune.by}", unit="trial") as bar:

        def loss(removed: list[int]) -> float:
            bar.update()
            return known(removed)

        return REMOVALS[how](loss, total, count)


def measured_loss(run: Run, model: PreTrainedModel) -> Loss:
    """Return what the recipe measures of the model without some blocks; lower is better."""
    if run.recipe.prune.by in MEASURES:
        return MEASURES[run.recipe.prune.by](model, calibration(run))
    harness = effect_task(run)

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return -mean_score(run, model, harness)

    return loss


def effect_task(run: Run) -> Harness:
    """Return the lm-eval task by which blocks are chosen.

    Raises:
        InputError: there is none of that name.
    """
    name = run.recipe.prune.by.removeprefix("task:")
    try:
        return find_tasks([name], run.recipe.evaluate.include_path)
    except InputError as error:
        raise InputError(f"prune.by names the task {name!r}, which is not there: {error}") from error


def keep_in_rounds(run: Run, sizes: dict[str, int], folder: Path) -> Keep:
    """Return the units that stay when the model is scored anew before each of several smaller cuts.

    The last round is a plan only, counted as all of it in the run's own model, and the stage writes its checkpoint.
    """
    folder.mkdir(exist_ok=True)
    cuts: list[Keep] = []
    prune_in_rounds(run.dense_dir, round_sizes(run, sizes), _scored(run), _pruned(run, folder, cuts))
    shutil.rmtree(folder)
    return reduce(lambda before, now: compose_keep(before, now, run.config.num_hidden_layers), cuts)


def round_sizes(run: Run, sizes: dict[str, int]) -> list[dict[str, int]]:
    """Return the sizes of all cut axes after each round; axes that hang on others follow them.

    Raises:
        InputError: a step on the way cannot be expressed.
    """
    costs = run.costs
    free = dict(sizes)
    for axis, leader in ((GROUPS, HEADS), (HIDDEN, HEADS)):
        tied = costs.sizes.get(GROUPS) == costs.sizes[HEADS] if axis == GROUPS else not costs.family.head_dim_free
        if tied and leader in free:
            free.pop(axis, None)
    if GROUPS in free:
        free.pop(HEADS, None)
    groups = costs.sizes.get(GROUPS, 1)
    multiples = {HEADS: 1 if groups == costs.sizes[HEADS] else groups}
    multiples |= {HIDDEN: costs.sizes[HEADS]} if costs.heads_divide_hidden else {}
    steps = size_schedule(costs.sizes, free, run.recipe.prune.rounds, multiples)
    whole = [sizes_of(step, costs) for step in steps[:-1]]
    if None in whole:
        raise InputError(
            f"prune.rounds: the sizes on the way cannot be expressed ({steps[whole.index(None)]}); cut at once"
        )
    return [{axis: step[axis] for axis in sizes} for step in whole] + [sizes]


def _scored(run: Run) -> Callable[[Path], Scores]:
    def scored(source: Path) -> Scores:
        path = source / SCORES if source != run.dense_dir else None
        if path is None:
            return Scores.load(run.folder.output("score", "scores"))
        if not path.is_file():
            score_model(run, run.load_for_scoring(source), source / PARTIAL).save(path)
        return Scores.load(path)

    return scored


def _pruned(run: Run, folder: Path, cuts: list[Keep]) -> Callable[[Path, Scores, dict[str, int]], Path]:
    def pruned(source: Path, scores: Scores, sizes: dict[str, int]) -> Path:
        cuts.append(choose_keep(scores, sizes, load_config(source), run.costs.family, ranking(run)))
        target = folder / str(len(cuts))
        if len(cuts) < run.recipe.prune.rounds and not target.exists():
            prune_checkpoint(source, target, cuts[-1], run.root)
        return target

    return pruned
