"""Which blocks to remove by the measured effect on the recipe's calibration texts or on an lm-eval task."""

from pathlib import Path

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.evaluation.harness import EvaluationTasks
from trl_prune.pruning.choosing.blocks import REMOVAL_STRATEGIES, RemovalLoss, cached_loss, num_measurements
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import mean_score
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.scoring import calibration


MEASUREMENTS = "effects.json"


def removed_by_effect(run: Run, num_kept: int, folder: Path) -> list[int]:
    """Return the blocks whose removal costs least; every measurement is stored, so that an interrupted search resumes.

    Args:
        run: the run.
        num_kept: blocks to keep.
        folder: the stage's folder.
    """
    section, num_layers = run.recipe.prune, run.costs.sizes[LAYERS]
    count = num_layers - num_kept
    loss_without = measured_loss(run, run.load_for_scoring(run.dense_dir))
    stored_loss = cached_loss(loss_without, Ledger(folder / MEASUREMENTS))
    total = num_measurements(section.strategy, num_layers, count)
    with tqdm(total=total, desc=f"prune by {section.by}", unit="trial") as bar:

        def loss(removed: list[int]) -> float:
            bar.update()
            return stored_loss(removed)

        return REMOVAL_STRATEGIES[section.strategy](loss, num_layers, count)


def measured_loss(run: Run, model: PreTrainedModel) -> RemovalLoss:
    """Return the loss by which the recipe chooses blocks, as a function of the removed blocks; lower is better."""
    by = run.recipe.prune.by
    if by in EFFECTS:
        return EFFECTS[by](model, calibration(run))
    tasks = effect_tasks(run)

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return -mean_score(run, model, tasks)

    return loss


def effect_tasks(run: Run) -> EvaluationTasks:
    """Return the lm-eval task or group by which blocks are chosen.

    Raises:
        InputError: no task has that name.
    """
    return run.load_tasks("prune.by", [run.recipe.prune.by.removeprefix("task:")])
