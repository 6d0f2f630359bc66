"""recover: the pruned model is trained, once for each arm of the recipe."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from trl_prune.checkpoints import read_provenance, write_json
from trl_prune.data.tokenizer_checks import check_padding
from trl_prune.pruning.choosing.baselines import random_keep
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.untrained import write_untrained
from trl_prune.recipe import ArmSection, Recipe
from trl_prune.recipe.recover import PRUNED, RANDOM_WEIGHTS
from trl_prune.reporting.card import write_card
from trl_prune.reporting.plots.recovery_curve import CURVE, RECOVERY_CURVE
from trl_prune.reporting.plots.training import LOSS
from trl_prune.reporting.tables import ARM_TABLE
from trl_prune.runs.arms import arm_settings, check_training, train, training_args
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.repairs import FITS, fitted_repairs
from trl_prune.runs.stage import Stage
from trl_prune.runs.training_rows import check_prompts, check_rows, rows_hash, training_rows
from trl_prune.trainers.arms.training import TrainingResult
from trl_prune.trainers.local_kd.config import LocalKDConfig
from trl_prune.trainers.local_kd.segments import cut_segments


START, MODEL, LOG = "start", "model", "log_history.json"
# FLOP of a training step, in forward passes: with all gradients, and without those of frozen weights (LoRA). What
# gradient checkpointing recomputes is not counted.
FULL_TRAINING_PASSES, LORA_PASSES = 3, 2


def execute(run: Run, part: str, folder: Path) -> StageOutput:
    """Train an arm, resuming from its last complete checkpoint, and save an ordinary checkpoint."""
    start = time.perf_counter()
    arm = run.recipe.recover[part]
    arm_plan = arm_settings(run, arm, initial_checkpoint(run, arm, folder), folder)
    data = training_rows(run, arm, training_args(run, arm, run.dtype))
    result = train(run, replace(arm_plan, teacher_cache=teacher_cache(run, part)), data.rows, folder / MODEL)
    shutil.rmtree(folder / START, ignore_errors=True)
    write_json(folder / LOG, result.log)
    metrics = {
        "method": arm.method,
        "data": arm.data_label,
        "init": arm.init,
        "rows": data.count - (arm.validation or 0),
        "tokens": result.tokens,
        "steps": result.steps,
        "final_loss": result.final_loss,
        "flops": flops(run, part, result, folder / MODEL),
    }
    if result.curve is not None:
        metrics[CURVE] = result.curve
    if data.sources is not None:
        metrics["sources"] = data.sources
    if data.capabilities is not None:
        metrics["capabilities"] = data.capabilities
    write_card(run, part, folder / MODEL, metrics)
    return StageOutput({"model": MODEL, "log": LOG}, metrics, {"seconds": time.perf_counter() - start})


def teacher_cache(run: Run, name: str) -> Path | None:
    """Return the cache that an arm reads its teacher from, or None if the teacher is loaded."""
    return run.folder.output("cache_teacher", "cache") if name in run.recipe.cached_arms else None


def initial_checkpoint(run: Run, arm: ArmSection, folder: Path) -> Path:
    """Return the checkpoint that an arm starts from; a baseline's is written into the arm's own folder."""
    pruned = run.folder.output("prune", "model")
    if arm.init == PRUNED:
        return pruned
    if arm.starts_from_arm:
        return run.folder.output("recover", "model", arm.init)
    start = folder / START
    if start.is_dir():
        return start
    if arm.init == RANDOM_WEIGHTS:
        write_untrained(pruned, start, run.recipe.seed)
    else:
        write_randomly_pruned(run, start)
    return start


def write_randomly_pruned(run: Run, target: Path) -> None:
    """Prune the dense model to the pruned model's sizes with units drawn at random, and the same repairs."""
    sizes = run.folder.require("prune").metrics["kept"]
    cut, scratch = Cut.of(run.config, random_keep(sizes, run.config, run.recipe.seed)), target.parent / FITS
    run.prune_to(target, cut.keep, fitted_repairs(run, cut, scratch, lenient=True))
    shutil.rmtree(scratch, ignore_errors=True)


def flops(run: Run, name: str, result: TrainingResult, model: Path) -> dict[str, float]:
    """Return the floating-point operations of an arm's student and of its teacher.

    A cached teacher reads the arm's rows once, whatever the number of epochs; what arms share is counted for each.

    Args:
        run: the run.
        name: the arm.
        result: that of its training.
        model: the checkpoint it made.
    """
    arm = run.recipe.recover[name]
    if arm.method == "local_kd":
        return _local_flops(run, arm, result.tokens, model)
    pruned_flops = run.folder.require("prune").metrics["pruned"]["flops_per_token"]
    passes = FULL_TRAINING_PASSES if arm.peft is None else LORA_PASSES
    teacher_tokens = result.row_tokens if name in run.recipe.cached_arms else result.tokens
    teacher_flops = teacher_tokens * run.size().flops_per_token if arm.method == "kd" else 0.0
    return {"student": passes * result.tokens * pruned_flops, "teacher": teacher_flops}


def _local_flops(run: Run, arm: ArmSection, tokens: int, model: Path) -> dict[str, float]:
    """Return those of the blocks that run: the dense model's up to the last one needed, and the trained ones."""
    metrics, provenance = run.folder.require("prune").metrics, read_provenance(model)
    keep = provenance.keep[LAYERS]
    saved = metrics["dense"]["flops_per_token"] - metrics["pruned"]["flops_per_token"]
    block_flops = saved / (run.costs.sizes[LAYERS] - len(keep))
    after = arm.args.get("blocks_after_cut", LocalKDConfig.blocks_after_cut)
    # Of a model that was pruned before, the blocks are counted in the root.
    segments = cut_segments(keep, provenance.dense[LAYERS], after)
    trained = sum(len(segment.blocks) for segment in segments)
    passes = FULL_TRAINING_PASSES if arm.peft is None else LORA_PASSES
    return {
        "student": passes * trained * block_flops * tokens,
        "teacher": (segments[-1].targets[-1] + 1) * block_flops * tokens,
    }


def parts(recipe: Recipe) -> list[str]:
    """Return the names of the arms."""
    return list(recipe.recover)


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make the pruned model, the rows and the teacher's cache."""
    rewrites = any(arm.uses_rewritten for arm in recipe.recover.values())
    selects = ["select"] * (recipe.select is not None)
    return ["prune", *selects] + ["rewrite"] * rewrites + ["cache_teacher"] * bool(recipe.cached_arms)


def inputs(run: Run, part: str) -> dict[str, str]:
    """Return the fingerprints of the pruned model, the arm's rows and the teacher."""
    arm = run.recipe.recover[part]
    hashes = {"pruned": run.folder.result_hash("prune"), "rows": rows_hash(run, arm)}
    # The stage itself trains the other arm first, so that its result may be missing when a run is planned.
    if arm.starts_from_arm and run.folder.result("recover", arm.init) is not None:
        hashes["start"] = run.folder.result_hash("recover", arm.init)
    if part in run.recipe.cached_arms:
        hashes["teacher_cache"] = run.folder.result_hash("cache_teacher")
    elif arm.has_teacher:
        hashes["dense"] = run.teacher_fingerprint
    return hashes


def settings(run: Run, part: str) -> dict:
    """Return the settings that determine the recovered model, the number of processes among them."""
    values = {"arm": run.recipe.recover[part].model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}
    values |= run.recipe.template_settings
    # Batch sizes are per process, so the number of processes changes the steps.
    return values if run.launch is None else values | {"processes": run.launch.processes}


def describe(run: Run, part: str) -> str:
    """Return how the arm will be trained."""
    arm = run.recipe.recover[part]
    steps = arm.args.get("max_steps", -1)
    length = f"{steps:,} steps" if steps > 0 else f"{arm.args.get('num_train_epochs', 3)} epochs"
    budget = f"{arm.tokens:,} tokens" if arm.tokens and steps <= 0 else length
    budget = f"{arm.minutes:g} minutes" if arm.minutes else budget
    weights = f"LoRA r={arm.peft.get('r', 8)}" if arm.peft is not None else "all weights"
    teacher = ", teacher cached" if part in run.recipe.cached_arms else ""
    init = "" if arm.init == PRUNED else f", from {arm.init}"
    processes = "" if run.launch is None else f", on {run.launch.processes} processes"
    rows = f"{arm.rows:,} rows, " if arm.rows else ""
    how = "without" if arm.method == "local_kd" else "measured on"
    validation = f", {how} {arm.validation} rows" if arm.validation else ""
    return f"{arm.method} on {arm.data_label}, {rows}{budget}, {weights}{teacher}{init}{processes}{validation}"


def check(run: Run) -> None:
    """Check every arm's arguments against TRL's and peft's, and its rows' number and format."""
    check_padding(run.tokenizer, "recover")
    for name, arm in run.recipe.recover.items():
        check_rows(run, name, arm)
        check_training(run, arm, f"recover.{name}")
        check_prompts(run, f"recover.{name}", arm, training_args(run, arm, run.recipe.dtype))


STAGE = Stage(
    "recover",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    check=check,
    panels=(LOSS, RECOVERY_CURVE, ARM_TABLE),
)
