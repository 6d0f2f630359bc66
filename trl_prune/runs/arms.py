"""What an arm is trained with: its training arguments, and the training itself."""

from pathlib import Path

from accelerate.utils import release_memory
from datasets import Dataset
from torch import nn

from trl_prune.data.teacher import context_length, within_context
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.recipe import ArmSection
from trl_prune.recipe.auto import AUTO
from trl_prune.runs.context import Run
from trl_prune.trainers.arms.checks import check_arm
from trl_prune.trainers.arms.distributed import train_distributed
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import TrainingResult, train_arm
from trl_prune.trainers.preparation import DEFAULT_LENGTH, without_masks


CHECKPOINTS = "checkpoints"
# Learning rates for `learning_rate: auto`: those that were measured, on models of 135M and 494M parameters
# (docs/recovery.md), and for models of a size that was not, LoRA's of 2402.13669 and a usual one for all weights.
RATES = {"lora": (1e-3, 1e-4), "all weights": (2e-4, 2e-5)}
# Those of local distillation, below so many parameters of the dense model; a model of 494M fell apart at 5e-4.
LOCAL_RATES, UNMEASURED_RATE = ((200_000_000, 1e-3), (1_000_000_000, 1e-4)), 2e-5
MEASURED_SIZE = 1_000_000_000
# Arguments whose trainers compare whole weights or keep a model of their own in each process.
WHOLE_WEIGHTS = ("freeze_shared_blocks", "teacher_correction")


def training_args(run: Run, arm: ArmSection, dtype: str) -> dict:
    """Return the arguments of an arm's training config.

    Args:
        run: the run.
        arm: the arm; its `args` override ours.
        dtype: the dtype to train in; `run.dtype`, or before that is chosen, the recipe's.
    """
    args = {"use_cpu": run.device == "cpu", "seed": run.recipe.seed, "bf16": dtype == "bfloat16"}
    length = within_context(DEFAULT_LENGTH, run.config)
    if length < DEFAULT_LENGTH:
        args["max_length"] = length
    if arm.data == "text":
        args["completion_only_loss"] = False
    args |= arm.args
    return args | {"learning_rate": chosen_rate(run, arm)} if args.get("learning_rate") == AUTO else args


def chosen_rate(run: Run, arm: ArmSection) -> float:
    """Return the learning rate of an arm that leaves it open."""
    if arm.method == "local_kd":
        return next((rate for parameters, rate in LOCAL_RATES if run.size().parameters < parameters), UNMEASURED_RATE)
    is_small = run.size().parameters < MEASURED_SIZE
    rate = RATES["lora" if arm.peft is not None else "all weights"][0 if is_small else 1]
    return rate / 2 if arm.starts_from_arm else rate


def check_training(run: Run, arm: ArmSection, key: str) -> None:
    """Check an arm's arguments against TRL's and peft's, before the dtype is chosen.

    Args:
        run: the run.
        arm: the arm.
        key: its key in the recipe, for the error.

    Raises:
        InputError: an unknown argument or a value that TRL or peft refuses.
    """
    try:
        args = training_args(run, arm, run.recipe.dtype)
        check_arm(args, arm.peft, arm.method, run.config.get_text_config().num_hidden_layers)
        _check_positions(run, args)
        _check_tokens(run, args)
        _check_whole_weights(run, arm, args)
    except InputError as error:
        raise InputError(f"{key}.{error}") from error


def _check_positions(run: Run, args: dict) -> None:
    """Check that a model with a table of positions is not trained on longer texts; others read them somehow."""
    length, context = args.get("max_length", DEFAULT_LENGTH), context_length(run.config)
    if context is None or (length is not None and length <= context):
        return
    tables = (name for name, module in meta_model(run.config).named_modules() if isinstance(module, nn.Embedding))
    if any("wpe" in name or "position" in name for name in tables):
        raise InputError(
            f"args.max_length is {'null' if length is None else length}; wanted: at most {context}, the positions "
            "that the model has learned"
        )


def _check_tokens(run: Run, args: dict) -> None:
    """Check that the tokens that an arm names are the tokenizer's."""
    for name in ("eos_token", "pad_token"):
        token = args.get(name)
        if token is not None and token not in run.tokenizer.get_vocab():
            raise InputError(f"args.{name} is {token!r}, which is no token of the tokenizer in {run.dense_dir}")


def _check_whole_weights(run: Run, arm: ArmSection, args: dict) -> None:
    """Check that an arm is none whose trainer needs whole weights, where processes may hold parts of them."""
    if run.launch is None or not run.launch.shards:
        return
    needing = [f"args.{name}" for name in WHOLE_WEIGHTS if args.get(name)]
    if arm.method == "local_kd":
        needing.insert(0, "method local_kd")
    if needing:
        raise InputError(
            f"{needing[0]} works in one process or under DDP, and {run.launch.config} is for FSDP or DeepSpeed; "
            "allowed: `--accelerate_config multi_gpu`, or another method (docs/recovery.md)"
        )


def arm_settings(run: Run, arm: ArmSection, student: Path, folder: Path) -> ArmSettings:
    """Return an arm as the trainers take it; its checkpoints go below a folder."""
    args = training_args(run, arm, run.dtype)
    return ArmSettings(
        student=student,
        output_dir=folder / CHECKPOINTS,
        args=without_masks(args) if arm.is_mix else args,
        peft=arm.peft,
        tokens=arm.tokens,
        minutes=arm.minutes,
        validation=arm.validation,
        method=arm.method,
        teacher=run.teacher_dir if arm.has_teacher else None,
    )


def train(run: Run, settings: ArmSettings, rows: Dataset, target: Path) -> TrainingResult:
    """Train an arm in this process, or with `accelerate launch` if the run has several, and write the model."""
    if run.launch is not None:
        return train_distributed(settings, rows, target, run.launch)
    result = train_arm(settings, rows, target)
    release_memory()  # a trainer and its model refer to each other, and another arm or an evaluation comes next
    return result
