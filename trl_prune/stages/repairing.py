"""Which repairs a cut gets, and fitting them on the recipe's calibration texts."""

from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from trl_prune.context import Run
from trl_prune.pruning.repairs import fitting_repairs, repairs_for
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.scores import Scores
from trl_prune.pruning.surgery import Cut, Repair
from trl_prune.stages.score import calibration


# Repairs that won on held-out text (benchmarks/README.md), made where they fit the cut unless the recipe says others.
DEFAULT_REPAIRS = ("norm_rescale", "least_squares")


def wanted_repairs(run: Run, cut: Cut) -> dict[str, dict]:
    """Return the repairs of a cut, by name to options."""
    told = run.recipe.prune.repairs
    if told != "auto":
        return told
    return {name: {} for name in fitting_repairs(run.dense_dir, cut) if name in DEFAULT_REPAIRS}


def fitted_repairs(run: Run, cut: Cut, scratch: Path) -> list[Repair]:
    """Fit the repairs, on the recipe's calibration texts where they need any.

    Args:
        run: the recipe at work.
        cut: the plan.
        scratch: a folder for what was fitted, from which an interrupted fit goes on.
    """
    wanted = wanted_repairs(run, cut)
    if not wanted:
        return []
    texts = Calibration(
        load=lambda: run.load("dense"),
        batches=calibration(run),
        scratch=scratch,
        head_scores=_head_scores(run) if "head_merge" in wanted else None,
        progress=lambda batches: tqdm(batches, desc="repair", unit="batch"),
    )
    return repairs_for(wanted, run.dense_dir, cut, texts)


def _head_scores(run: Run) -> Tensor:
    by = run.recipe.prune.ranking
    return Scores.load(run.folder.output("score", "scores")).heads(by.batch, by.sequence)
