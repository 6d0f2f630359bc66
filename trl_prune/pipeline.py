"""Who calls whom: the stages of a recipe, checked, then done or skipped one after the other."""

import logging
import shutil
from collections.abc import Iterator

from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.runs.artifacts import verb
from trl_prune.runs.context import Run
from trl_prune.runs.pruning_plan import planned_keep
from trl_prune.runs.search_space import models_at_once
from trl_prune.runs.stage import Stage
from trl_prune.stages import cache_teacher, evaluate, prune, recover, report, rewrite, score, search
from trl_prune.trainers.launching import find_launch


STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (score, search, prune, rewrite, cache_teacher, recover, evaluate, report)
}
# Adam's two moments and the float32 master weights of a training checkpoint, in bytes a parameter.
TRAINING_BYTES = 12
# What repairs keep of each fitted weight until the checkpoint is written, in bytes.
FITTED_BYTES = 4
logger = logging.getLogger("trl_prune")


def wanted_stages(recipe: Recipe) -> list[str]:
    """Return the stages that a recipe asks for, in order."""
    unwanted = set()
    if not recipe.prune.needs_scores and recipe.search is None:
        unwanted.add("score")
    if recipe.search is None:
        unwanted.add("search")
    if recipe.rewrite is None:
        unwanted.add("rewrite")
    if not recipe.cached_arms:
        unwanted.add("cache_teacher")
    return [name for name in STAGES if name not in unwanted]


def run_recipe(recipe: Recipe, stages: list[str] | None = None, accelerate_config: str | None = None) -> Run:
    """Run a recipe's stages, all of them or those named; finished ones are skipped, a broken one goes on.

    Args:
        recipe: the recipe.
        stages: the verbs to run; those that the recipe asks for where None.
        accelerate_config: how arms are trained on several devices: a file of accelerate's, or a name TRL ships; on all
            GPUs where None.

    Raises:
        InputError: something the user gave is wrong; found before the first stage starts wherever it can be.
    """
    run = Run(recipe, find_launch(accelerate_config))
    names = stages or wanted_stages(recipe)
    run.folder.check(identity(recipe))
    check(run, names)
    with run.folder.held(identity(recipe)):
        run.record_choices()
        check_fresh(run, names)
        for name in names:
            for unit in STAGES[name].units(recipe):
                do(run, STAGES[name], unit)
    return run


def check_fresh(run: Run, names: list[str]) -> None:
    """Check that the results a stage run alone builds on are those of this recipe.

    Raises:
        InputError: an earlier stage's result is of other settings or inputs.
    """
    earlier = [name for name in wanted_stages(run.recipe) if list(STAGES).index(name) < list(STAGES).index(names[0])]
    for name in earlier:
        for unit in STAGES[name].units(run.recipe):
            if run.folder.result(name, unit) is not None and not _is_done(run, STAGES[name], unit):
                raise InputError(
                    f"{run.folder.stage_dir(name, unit)} is of other settings or inputs than this recipe's: run "
                    f"`trl-prune {verb(name)}` again first, or `run`"
                )


def identity(recipe: Recipe) -> str:
    """Return the words by which a run folder knows whose run it holds."""
    return recipe.model + (f"@{recipe.revision}" if recipe.revision else "")


def check(run: Run, names: list[str]) -> None:
    """Check all stages' inputs, and the disk, before the first stage starts."""
    for name in names:
        if STAGES[name].units(run.recipe):
            STAGES[name].check(run)
    free, needed = shutil.disk_usage(_existing(run)).free, disk_needed(run)
    if needed > free:
        raise InputError(f"{run.folder.path} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free")


def _existing(run: Run) -> str:
    path = run.folder.path.absolute()
    return str(next(parent for parent in (path, *path.parents) if parent.is_dir()))


def disk_needed(run: Run) -> int:
    """Return the bytes a run writes at most, a teacher's cache not counted, whose tokens are not known yet.

    These are the pruned model and those of its rounds, what its repairs fitted, a search's candidates, each arm's
    model, one baseline's start and one training's checkpoints.
    """
    pruned = run.size(planned_keep(run)).parameters
    model_bytes = int(run.dense_bytes * pruned / run.size().parameters)
    arms = run.recipe.recover.values()
    trained = [*arms, *([run.recipe.search.train] if run.recipe.search else [])]
    full = any(arm.peft is None for arm in trained)
    starts = any(arm.init != "pruned" for arm in arms)
    models = len(arms) + starts + models_at_once(run) + run.recipe.prune.rounds
    fits = FITTED_BYTES * pruned * (run.recipe.prune.repairs != {})
    return model_bytes * models + fits + 2 * TRAINING_BYTES * pruned * full


def do(run: Run, stage: Stage, unit: str) -> None:
    """Do a unit of a stage, or skip it where its result still fits."""
    inputs, settings = stage.inputs(run, unit), stage.settings(run, unit)
    title = f"{stage.name} {unit}".strip()
    if run.folder.is_done(stage.name, unit, inputs, settings):
        logger.info("%s: done before", title)
        return
    folder = run.folder.begin(stage.name, unit, inputs, settings)
    logger.info("%s: %s", title, stage.plan(run, unit))
    run.seed_everything()
    run.folder.finish(stage.name, unit, stage.work(run, unit, folder))


def plan(recipe: Recipe, accelerate_config: str | None = None) -> Iterator[str]:
    """Yield the lines of a dry run: what each stage would do, or that it is done; nothing is written."""
    run = Run(recipe, find_launch(accelerate_config))
    run.folder.check(identity(recipe))
    names = wanted_stages(recipe)
    check(run, names)
    config = run.config
    yield f"model {recipe.model}: {config.model_type}, {run.dense_dir}"
    yield f"dataset {recipe.dataset.path}: {len(run.dataset)} rows, {run.dataset_format}"
    yield f"output {run.folder.path}: up to {disk_needed(run) / 1e9:.2f} GB"
    for name in names:
        for unit in STAGES[name].units(recipe):
            state = "skip" if _is_done(run, STAGES[name], unit) else "run "
            yield f"  {state} {f'{name} {unit}'.strip():<18} {STAGES[name].plan(run, unit)}"


def _is_done(run: Run, stage: Stage, unit: str) -> bool:
    if recipe_is_new(run):
        return False
    try:
        return run.folder.is_done(stage.name, unit, stage.inputs(run, unit), stage.settings(run, unit))
    except InputError:  # an earlier stage has no result yet
        return False


def recipe_is_new(run: Run) -> bool:
    """Return whether nothing was settled in the run folder yet."""
    return "dtype" not in run.folder.notes()
