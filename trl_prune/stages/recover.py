"""recover: the pruned model learns again, once for each arm of the recipe."""

import time
from pathlib import Path

from datasets import Dataset

from trl_prune.artifacts import Outcome
from trl_prune.checkpoints import write_json
from trl_prune.config import ArmSection, Recipe
from trl_prune.context import Run
from trl_prune.data.formatting import conversational, read_dataset
from trl_prune.errors import InputError
from trl_prune.stages.stage import Stage
from trl_prune.trainers.arms import ArmPlan, check_arm, train_arm


CHECKPOINTS, MODEL, LOG = "checkpoints", "model", "log_history.json"


def arm_rows(run: Run, arm: ArmSection) -> Dataset:
    """Return the rows an arm trains on."""
    if arm.data == "references":
        return run.dataset
    return read_dataset(str(run.folder.output("rewrite", "rows")))


def training_args(run: Run, arm: ArmSection) -> dict:
    """Return TRL's arguments of an arm, but for the arithmetic, which a dry run does not settle."""
    return {"use_cpu": run.device == "cpu", "seed": run.recipe.seed} | arm.args


def arm_plan(run: Run, arm: ArmSection, student: Path, folder: Path) -> ArmPlan:
    """Return an arm as the trainer takes it, which keeps its checkpoints in the folder."""
    return ArmPlan(
        student=student,
        output_dir=folder / CHECKPOINTS,
        args=training_args(run, arm) | {"bf16": run.dtype == "bfloat16"} | arm.args,
        peft=arm.peft,
        tokens=arm.tokens,
    )


def work(run: Run, unit: str, folder: Path) -> Outcome:
    """Train an arm, going on from its last whole checkpoint, and save a plain model."""
    start = time.perf_counter()
    arm = run.recipe.recover[unit]
    plan = arm_plan(run, arm, run.folder.output("prune", "model"), folder)
    told = train_arm(plan, arm_rows(run, arm), folder / MODEL)
    write_json(folder / LOG, told.log)
    metrics = {"tokens": told.tokens, "steps": told.steps, "final_loss": told.final_loss, "data": arm.data}
    return Outcome({"model": MODEL, "log": LOG}, metrics, {"seconds": time.perf_counter() - start})


def units(recipe: Recipe) -> list[str]:
    """Return the arms."""
    return list(recipe.recover)


def inputs(run: Run, unit: str) -> dict[str, str]:
    """Name the pruned model and the arm's rows."""
    rewritten = run.recipe.recover[unit].data == "rewritten"
    rows = run.folder.result_hash("rewrite") if rewritten else run.dataset_fingerprint
    return {"pruned": run.folder.result_hash("prune"), "rows": rows}


def settings(run: Run, unit: str) -> dict:
    """Name what decides the recovered model."""
    return {"arm": run.recipe.recover[unit].model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}


def plan(run: Run, unit: str) -> str:
    """Say how the arm will be trained."""
    arm = run.recipe.recover[unit]
    budget = f"{arm.tokens:,} tokens" if arm.tokens else f"{arm.args.get('num_train_epochs', 3)} epochs"
    weights = f"LoRA r={arm.peft.get('r', 8)}" if arm.peft is not None else "all weights"
    return f"{arm.method} on {arm.data}, {budget}, {weights}"


def check(run: Run) -> None:
    """Check every arm's arguments against TRL's and peft's, and that messages can become text."""
    if run.recipe.recover and run.tokenizer.chat_template is None and conversational(run.dataset):
        raise InputError(
            f"dataset {run.recipe.dataset.path!r} has messages, and the model has no chat template for them"
        )
    for name, arm in run.recipe.recover.items():
        try:
            check_arm({"bf16": run.recipe.dtype == "bfloat16"} | training_args(run, arm), arm.peft)
        except InputError as error:
            raise InputError(f"recover.{name}.{error}") from error


STAGE = Stage("recover", inputs, settings, work, plan, units, check)
