"""recover: the pruned model learns again, once for each arm of the recipe."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from trl_prune.checkpoints import write_json
from trl_prune.data.formats import conversational
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.baselines import random_keep
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.untrained import write_untrained
from trl_prune.recipe import ArmSection, Recipe
from trl_prune.runs.arms import arm_rows, rows_hash, training_args
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.repairs import fitted_repairs
from trl_prune.runs.stage import Stage
from trl_prune.trainers.arms.launched import train_launched
from trl_prune.trainers.arms.plan import ArmPlan, check_arm
from trl_prune.trainers.arms.training import Trained, train_arm


CHECKPOINTS, START, MODEL, LOG = "checkpoints", "start", "model", "log_history.json"
# Forward passes that a training step costs: all gradients, or those of frozen weights left out (LoRA). What gradient
# checkpointing computes again is not counted.
ALL_WEIGHTS_PASSES, LORA_PASSES = 3, 2


def work(run: Run, unit: str, folder: Path) -> StageOutput:
    """Train an arm, going on from its last whole checkpoint, and save a plain model."""
    start = time.perf_counter()
    arm = run.recipe.recover[unit]
    told = arm_plan(run, arm, student(run, arm, folder), folder)
    told = train(run, replace(told, teacher_cache=cached_teacher(run, unit)), arm_rows(run, arm), folder / MODEL)
    shutil.rmtree(folder / START, ignore_errors=True)
    write_json(folder / LOG, told.log)
    metrics = {
        "method": arm.method,
        "data": arm.data,
        "init": arm.init,
        "tokens": told.tokens,
        "steps": told.steps,
        "final_loss": told.final_loss,
        "flops": flops(run, unit, told),
    }
    return StageOutput({"model": MODEL, "log": LOG}, metrics, {"seconds": time.perf_counter() - start})


def train(run: Run, told: ArmPlan, rows: Dataset, target: Path) -> Trained:
    """Train an arm here, or in processes of its own where there are several devices."""
    if run.launch is None:
        return train_arm(told, rows, target)
    return train_launched(told, rows, target, run.launch)


def arm_plan(run: Run, arm: ArmSection, student: Path, folder: Path) -> ArmPlan:
    """Return an arm as the trainer takes it, which keeps its checkpoints in the folder."""
    return ArmPlan(
        student=student,
        output_dir=folder / CHECKPOINTS,
        args=training_args(run, arm) | {"bf16": run.dtype == "bfloat16"} | arm.args,
        peft=arm.peft,
        tokens=arm.tokens,
        method=arm.method,
        teacher=run.teacher_dir if arm.method == "kd" else None,
    )


def cached_teacher(run: Run, name: str) -> Path | None:
    """Return the cache an arm reads its teacher from, or None where the teacher runs along."""
    return run.folder.output("cache_teacher", "cache") if name in run.recipe.cached_arms else None


def student(run: Run, arm: ArmSection, folder: Path) -> Path:
    """Return the checkpoint that an arm starts from; a baseline's is made in the arm's folder."""
    pruned = run.folder.output("prune", "model")
    if arm.init == "pruned":
        return pruned
    start = folder / START
    if start.is_dir():
        return start
    if arm.init == "random_weights":
        write_untrained(pruned, start, run.recipe.seed)
    else:
        write_randomly_pruned(run, start)
    return start


def write_randomly_pruned(run: Run, target: Path) -> None:
    """Cut the dense model to the pruned one's sizes without looking at its units, and repair it as that one."""
    sizes = run.folder.needed("prune").metrics["kept"]
    cut, scratch = Cut.of(run.config, random_keep(sizes, run.config, run.recipe.seed)), target.parent / "repairs"
    prune_checkpoint(run.dense_dir, target, cut.keep, run.root, fitted_repairs(run, cut, scratch, lenient=True))
    shutil.rmtree(scratch, ignore_errors=True)


def flops(run: Run, name: str, told: Trained) -> dict[str, float]:
    """Return the floating-point operations of an arm's student and of its teacher.

    A cached teacher read the arm's rows once, however many epochs the arm has; what arms share is counted for each.
    """
    arm = run.recipe.recover[name]
    pruned = run.folder.needed("prune").metrics["pruned"]["flops_per_token"]
    passes = ALL_WEIGHTS_PASSES if arm.peft is None else LORA_PASSES
    read = told.row_tokens if name in run.recipe.cached_arms else told.tokens
    teacher = read * run.size().flops_per_token if arm.method == "kd" else 0.0
    return {"student": passes * told.tokens * pruned, "teacher": teacher}


def units(recipe: Recipe) -> list[str]:
    """Return the arms."""
    return list(recipe.recover)


def inputs(run: Run, unit: str) -> dict[str, str]:
    """Name the pruned model, the arm's rows, and the teacher."""
    arm = run.recipe.recover[unit]
    named = {"pruned": run.folder.result_hash("prune"), "rows": rows_hash(run, arm.data)}
    if unit in run.recipe.cached_arms:
        named["teacher_cache"] = run.folder.result_hash("cache_teacher")
    elif arm.method == "kd":
        named["dense"] = run.teacher_fingerprint
    return named


def settings(run: Run, unit: str) -> dict:
    """Name what decides the recovered model; each process takes a batch of its own, so their number does."""
    told = {"arm": run.recipe.recover[unit].model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}
    return told if run.launch is None else told | {"processes": run.launch.processes}


def plan(run: Run, unit: str) -> str:
    """Say how the arm will be trained."""
    arm = run.recipe.recover[unit]
    budget = f"{arm.tokens:,} tokens" if arm.tokens else f"{arm.args.get('num_train_epochs', 3)} epochs"
    weights = f"LoRA r={arm.peft.get('r', 8)}" if arm.peft is not None else "all weights"
    teacher = ", teacher cached" if unit in run.recipe.cached_arms else ""
    start = "" if arm.init == "pruned" else f", from {arm.init}"
    where = "" if run.launch is None else f", on {run.launch.processes} processes"
    return f"{arm.method} on {arm.data}, {budget}, {weights}{teacher}{start}{where}"


def check(run: Run) -> None:
    """Check every arm's arguments against TRL's and peft's, and that messages can become text."""
    if run.recipe.recover and run.tokenizer.chat_template is None and conversational(run.dataset):
        raise InputError(
            f"dataset {run.recipe.dataset.path!r} has messages, and the model has no chat template for them"
        )
    for name, arm in run.recipe.recover.items():
        try:
            args = {"bf16": run.recipe.dtype == "bfloat16"} | training_args(run, arm)
            check_arm(args, arm.peft, arm.method, run.config.num_hidden_layers)
        except InputError as error:
            raise InputError(f"recover.{name}.{error}") from error


STAGE = Stage("recover", inputs, settings, work, plan, units, check)
