"""What an arm of `recover` learns from, for the stages that need to know it."""

from datasets import Dataset

from trl_prune.recipe import ArmSection
from trl_prune.runs.context import Run
from trl_prune.data.reading import read_dataset


def arm_rows(run: Run, arm: ArmSection) -> Dataset:
    """Return the rows an arm trains on."""
    return read_dataset(str(run.folder.output("rewrite", "rows"))) if arm.data == "rewritten" else run.dataset


def rows_hash(run: Run, data: str) -> str:
    """Return the hash by which the rows of one kind of data are named as an input."""
    return run.folder.result_hash("rewrite") if data == "rewritten" else run.dataset_fingerprint


def training_args(run: Run, arm: ArmSection) -> dict:
    """Return TRL's arguments of an arm, but for the arithmetic, which a dry run does not settle."""
    told = {"use_cpu": run.device == "cpu", "seed": run.recipe.seed}
    if arm.data == "text":
        told["completion_only_loss"] = False
    return told | arm.args
