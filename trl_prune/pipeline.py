"""Who calls whom: the stages of a recipe, checked, then done or skipped one after the other."""

import logging
import shutil
from collections.abc import Iterator, Sequence

from trl_prune.errors import InputError, refusal
from trl_prune.recipe import Recipe
from trl_prune.recipe.recover import BASELINES
from trl_prune.runs.artifacts import verb
from trl_prune.runs.context import Run
from trl_prune.runs.pruning_plan import planned_keep
from trl_prune.runs.scoring import states_on_disk
from trl_prune.runs.search_space import max_models_on_disk
from trl_prune.runs.stage import Stage
from trl_prune.stages import (
    cache_teacher,
    evaluate,
    merge,
    prune,
    recover,
    report,
    rewrite,
    score,
    search,
    select,
    speculate,
    synthesize,
)
from trl_prune.trainers.launching import resolve_launch


REPORTED = tuple(
    module.STAGE
    for module in (
        synthesize,
        score,
        search,
        prune,
        select,
        rewrite,
        cache_teacher,
        recover,
        merge,
        evaluate,
        speculate,
    )
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in (*REPORTED, report.report_stage(REPORTED))}
# Adam's two moments and the float32 master weights of a training checkpoint, in bytes per parameter.
TRAINING_BYTES = 12
# What repairs store of each fitted weight until the checkpoint is written, in bytes.
REPAIR_BYTES = 4
logger = logging.getLogger("trl_prune")


def run_recipe(
    recipe: Recipe,
    stages: Sequence[str] | None = None,
    accelerate_config: str | None = None,
    only: bool = False,
) -> Run:
    """Run a recipe's stages, or some of them with those they need; skip finished ones and resume interrupted ones.

    Args:
        recipe: the recipe.
        stages: names of stages; all that the recipe configures if None.
        accelerate_config: how training is distributed: a config file of accelerate, or a name that TRL ships; all GPUs
            if None.
        only: run the named stages alone, on results that exist.

    Raises:
        InputError: a mistake in the user's input, found before the first stage starts wherever possible.
    """
    run = _open_run(recipe, accelerate_config)
    names = stages_to_run(recipe, stages, only)
    check(run, names)
    with run.folder.lock(run_identity(recipe)):
        run.record_choices()
        if only:
            check_earlier_results(run, names)
        for name in names:
            for part in STAGES[name].parts(recipe):
                execute_part(run, STAGES[name], part)
    return run


def _open_run(recipe: Recipe, accelerate_config: str | None) -> Run:
    run = Run(recipe, resolve_launch(accelerate_config))
    run.folder.check(run_identity(recipe))
    return run


def run_identity(recipe: Recipe) -> str:
    """Return the model and revision by which a run folder knows its run."""
    return recipe.model + (f"@{recipe.revision}" if recipe.revision else "")


def stages_to_run(recipe: Recipe, stages: Sequence[str] | None, only: bool = False) -> list[str]:
    """Return the named stages and all stages that they need, in the pipeline's order.

    Args:
        recipe: the recipe.
        stages: names of stages; all that the recipe configures if None.
        only: leave out the stages that the named ones need.

    Raises:
        InputError: a named stage has nothing to do in this recipe.
    """
    if stages is None:
        if not recipe.evaluate.tasks:
            logger.warning("evaluate.tasks is empty, so that nothing is evaluated")
        return [name for name, stage in STAGES.items() if stage.is_configured(recipe)]
    for name in stages:
        if not STAGES[name].parts(recipe):
            raise InputError(f"the recipe's `{name}` section names nothing to do")
    required = set(stages) if only else _with_needed(recipe, stages)
    return [name for name in STAGES if name in required]


def _with_needed(recipe: Recipe, stages: Sequence[str]) -> set[str]:
    required = set(stages) | ({"synthesize"} if synthesize.is_configured(recipe) else set())
    for name in reversed(STAGES):  # a stage needs earlier ones only
        if name in required:
            required |= set(STAGES[name].needs(recipe))
    return required


def check_earlier_results(run: Run, names: Sequence[str]) -> None:
    """Check that the results that stages run alone read exist and are those of this recipe.

    Raises:
        InputError: a stage that they need has no result, or one of other settings or inputs.
    """
    required = _with_needed(run.recipe, names)
    for stage in [stage for name, stage in STAGES.items() if name in required]:
        makes_inputs_first = set(stage.needs(run.recipe)) & set(names)
        for part in stage.parts(run.recipe):
            if stage.name not in names:
                _check_result(run, stage, part)
            elif not makes_inputs_first:
                stage.inputs(run, part)  # which says what is missing


def _check_result(run: Run, stage: Stage, part: str) -> None:
    if run.folder.result(stage.name, part) is None:  # a report is made of the results that there are
        return
    if not run.folder.is_done(stage.name, part, stage.inputs(run, part), stage.settings(run, part)):
        raise InputError(
            f"{run.folder.stage_dir(stage.name, part)} has other settings or inputs than this recipe: run "
            f"`trl-prune {verb(stage.name)}` again first, or leave out --only"
        )


def check(run: Run, names: Sequence[str]) -> None:
    """Check the user's input to the named stages, and the free disk space, before the first stage starts."""
    for name in names:
        if STAGES[name].parts(run.recipe):
            STAGES[name].check(run)
    free, needed = shutil.disk_usage(_existing_parent(run)).free, disk_needed(run)
    if needed > free:
        raise InputError(f"{run.folder.path} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free")


def _existing_parent(run: Run) -> str:
    path = run.folder.path.absolute()
    return str(next(parent for parent in (path, *path.parents) if parent.is_dir()))


def disk_needed(run: Run) -> int:
    """Return an upper bound of the bytes that a run writes, without the teacher's cache, whose size is not known yet.

    Counted are the pruned model and those of its rounds, the fitted repairs, a search's candidates, each arm's model,
    one baseline's initial model, the checkpoints of one training, each merge and what is beside one of them meanwhile:
    its candidate and the models of its adapters, or the results of a chain; and the states of scoring by blocks.
    """
    keep, candidates = planned_keep(run), max_models_on_disk(run)
    pruned = run.size(keep).parameters
    model_bytes = int(run.dense_bytes * pruned / run.size().parameters)
    arms = run.recipe.recover.values()
    trained = [*arms, *([run.recipe.search.train] if run.recipe.search else [])]
    trains_all_weights = any(arm.peft is None for arm in trained)
    has_baseline = any(arm.init in BASELINES for arm in arms)
    merges = run.recipe.merges.values()
    beside_merge = max((len(merge.models) + 2 for merge in merges), default=0)
    models = len(arms) + has_baseline + candidates + run.recipe.prune.rounds + len(merges) + beside_merge
    repairs = REPAIR_BYTES * pruned * (run.recipe.prune.repairs != {})
    scored = states_on_disk(run) if score.STAGE.is_configured(run.recipe) else 0
    return model_bytes * models + repairs + scored + 2 * TRAINING_BYTES * pruned * trains_all_weights


def execute_part(run: Run, stage: Stage, part: str) -> None:
    """Do a part of a stage, or skip it if its result matches inputs and settings.

    Raises:
        InputError: also if the disk is full or refuses a file; the next run resumes.
    """
    inputs, settings = stage.inputs(run, part), stage.settings(run, part)
    title = f"{stage.name} {part}".strip()
    if run.folder.is_done(stage.name, part, inputs, settings):
        logger.info("%s: done before", title)
        return
    try:
        folder = run.folder.begin(stage.name, part, inputs, settings, stage.keeps)
        logger.info("%s: %s", title, stage.describe(run, part))
        run.seed_everything()
        run.folder.finish(stage.name, part, stage.execute(run, part, folder))
    except InputError:
        raise
    except Exception as error:  # libraries raise errors of their own for a full disk
        refused = refusal(error)
        if refused is None:
            raise
        place = run.folder.stage_dir(stage.name, part)
        raise InputError(f"{title}: writing {place} failed: {refused}; the same command resumes") from error


def plan(
    recipe: Recipe,
    stages: Sequence[str] | None = None,
    accelerate_config: str | None = None,
    only: bool = False,
) -> Iterator[str]:
    """Yield the lines of a dry run: what `run_recipe` with the same arguments would do or skip; writes nothing."""
    run = _open_run(recipe, accelerate_config)
    names = stages_to_run(recipe, stages, only)
    check(run, names)
    if only:
        check_earlier_results(run, names)
    yield f"model {recipe.model}: {run.config.model_type}, {run.dense_dir}"
    yield f"dtype {run.describe_dtype()}"
    yield f"dataset {recipe.dataset.path}: {len(run.dataset)} rows, {run.dataset_formats}"
    yield f"output {run.folder.path}: up to {disk_needed(run) / 1e9:.2f} GB"
    for name in names:
        for part in STAGES[name].parts(recipe):
            action = "skip" if _is_done(run, STAGES[name], part) else "run "
            yield f"  {action} {f'{name} {part}'.strip():<18} {STAGES[name].describe(run, part)}"


def _is_done(run: Run, stage: Stage, part: str) -> bool:
    if "dtype" not in run.folder.notes():  # a new run, whose dtype is not chosen yet
        return False
    try:
        return run.folder.is_done(stage.name, part, stage.inputs(run, part), stage.settings(run, part))
    except InputError:  # an earlier stage has no result yet
        return False
