"""Which repairs a cut gets, and fitting them on the recipe's calibration texts."""

from functools import cache
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from trl_prune.runs.context import Run
from trl_prune.pruning.families import HIDDEN, NEURONS
from trl_prune.pruning.repairs import fitting_repairs, repairs_for
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.checkpoint import Repair
from trl_prune.runs.scoring import calibration


# Repairs that won on held-out text (benchmarks/README.md), made where they fit the cut unless the recipe says others.
DEFAULT_REPAIRS = ("least_squares", "linear_map", "norm_rescale")
# What is fitted wants so many calibration tokens for each of its inputs: fewer, and it learns the texts by heart. The
# measurements had from 10 to 28.
TOKENS_AN_INPUT = 10


def wanted_repairs(run: Run, cut: Cut) -> dict[str, dict]:
    """Return the repairs of a cut, by name to options."""
    told = run.recipe.prune.repairs
    if told != "auto":
        return told
    fitting = [name for name in fitting_repairs(run.dense_dir, cut) if name in DEFAULT_REPAIRS]
    return {name: {} for name in fitting if calibration_tokens(run) >= tokens_wanted(name, cut)}


def reads_texts(repairs: dict[str, dict]) -> bool:
    """Return whether any repair is fitted on calibration texts."""
    fitted = {"least_squares", "linear_map"} & repairs.keys()
    return bool(fitted) or repairs.get("norm_rescale", {}).get("energy") == "measured"


def tokens_wanted(name: str, cut: Cut) -> int:
    """Return how many calibration tokens a repair wants."""
    inputs = {
        "least_squares": max(
            cut.sizes.get(axis, 0) for axis in (HIDDEN, NEURONS) if axis == HIDDEN or axis in cut.keep
        ),
        "linear_map": cut.sizes[HIDDEN],
    }
    return TOKENS_AN_INPUT * inputs.get(name, 0)


def left_out(run: Run, cut: Cut) -> str:
    """Say which repairs `auto` leaves out for want of calibration texts, or nothing."""
    if run.recipe.prune.repairs != "auto":
        return ""
    wanted = wanted_repairs(run, cut)
    missed = [name for name in fitting_repairs(run.dense_dir, cut) if name in DEFAULT_REPAIRS and name not in wanted]
    tokens = calibration_tokens(run)
    return "; ".join(
        f"no {name}: {tokens:,} calibration tokens, {tokens_wanted(name, cut):,} wanted (`score.samples`)"
        for name in missed
    )


@cache
def calibration_tokens(run: Run) -> int:
    """Return how many tokens the recipe's calibration texts have."""
    return sum(int(batch["attention_mask"].sum()) for batch in calibration(run))


def fitted_repairs(run: Run, cut: Cut, scratch: Path, lenient: bool = False) -> list[Repair]:
    """Fit the repairs, on the recipe's calibration texts where they need any.

    Args:
        run: the recipe at work.
        cut: the plan.
        scratch: a folder for what was fitted, from which an interrupted fit goes on.
        lenient: leave out repairs of the recipe that do not fit this cut.
    """
    fitting = fitting_repairs(run.dense_dir, cut) if lenient else None
    wanted = {name: told for name, told in wanted_repairs(run, cut).items() if fitting is None or name in fitting}
    if not wanted:
        return []
    texts = Calibration(
        load=lambda: run.load_for_scoring(run.dense_dir),
        batches=calibration(run),
        scratch=scratch,
        head_scores=_head_scores(run) if "head_merge" in wanted else None,
        progress=lambda batches: tqdm(batches, desc="repair", unit="batch"),
    )
    return repairs_for(wanted, run.dense_dir, cut, texts)


def _head_scores(run: Run) -> Tensor:
    by = run.recipe.prune.ranking
    return Scores.load(run.folder.output("score", "scores")).heads(by.batch, by.sequence)
