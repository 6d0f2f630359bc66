"""Which repairs a cut gets, and fitting them on the recipe's calibration texts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.errors import InputError
from trl_prune.pruning.families import HIDDEN, LAYERS
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.repairs import REPAIRS, applicable_repairs, build_repairs, default_options
from trl_prune.pruning.repairs.calibration import GIB, Calibration
from trl_prune.pruning.repairs.run_maps import RunMaps, check_every_block, states_bytes
from trl_prune.pruning.surgery.checkpoint import Repair
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.runs.context import Run
from trl_prune.runs.scoring import calibration, calibration_tokens


MAP = "linear_map"
# The repairs that won on held-out text (benchmarks/README.md): `auto` makes those of them that apply to the cut.
DEFAULT_REPAIRS = ("least_squares", MAP, "norm_rescale")
# Calibration tokens that a fitted repair needs for each of its inputs; with fewer it overfits the texts. The
# measurements had 10 to 28.
TOKENS_PER_INPUT = 10
# States that maps are fitted to where the recipe leaves open whether the search does: those of a model of 8B on some
# 60,000 tokens.
MAX_STATES_BYTES = 32 * GIB
# Scratch folder of fitted weights, beside the checkpoint that is written.
FITS = "repairs"


def recipe_repairs(run: Run, cut: Cut) -> dict[str, dict]:
    """Return the options of each repair of a cut, by name."""
    repairs = run.recipe.prune.repairs
    if repairs != "auto":
        return repairs
    return {name: {} for name in _default_repairs(run, cut) if calibration_tokens(run) >= required_tokens(name, cut)}


def _default_repairs(run: Run, cut: Cut) -> list[str]:
    return [name for name in applicable_repairs(run.dense_dir, cut) if name in DEFAULT_REPAIRS]


def required_tokens(name: str, cut: Cut) -> int:
    """Return how many calibration tokens a repair needs."""
    return TOKENS_PER_INPUT * REPAIRS[name].num_inputs(cut)


def omitted_repairs(run: Run, cut: Cut) -> str:
    """Return which repairs `auto` omits because calibration tokens are too few, as text; empty for none."""
    if run.recipe.prune.repairs != "auto":
        return ""
    tokens, made = calibration_tokens(run), recipe_repairs(run, cut)
    return "; ".join(
        f"no {name}: {tokens:,} calibration tokens, {required_tokens(name, cut):,} required (`score.samples`)"
        for name in _default_repairs(run, cut)
        if name not in made
    )


def fitted_repairs(run: Run, cut: Cut, scratch: Path, lenient: bool = False) -> list[Repair]:
    """Return the repairs of a cut, fitted on the recipe's calibration texts where they need any.

    Args:
        run: the run.
        cut: the checked plan.
        scratch: folder for fitted weights, from which an interrupted fit resumes.
        lenient: whether to omit repairs of the recipe that do not apply to this cut.
    """
    repairs = recipe_repairs(run, cut)
    if lenient:
        applicable = applicable_repairs(run.dense_dir, cut)
        repairs = {name: options for name, options in repairs.items() if name in applicable}
    if not repairs:
        return []
    texts = _texts(run, lambda: run.load_for_scoring(run.dense_dir), scratch)
    if "head_merge" in repairs:
        texts = replace(texts, head_scores=_head_scores(run))
    return build_repairs(repairs, run.dense_dir, cut, texts)


def run_maps(run: Run, model: PreTrainedModel) -> RunMaps:
    """Return the linear maps in the place of any blocks, as the recipe fits them, for a search among many cuts."""
    # The texts first: where they are the model's answers, only those that exist can be counted.
    texts = _texts(run, lambda: model, run.folder.stage_dir("prune") / FITS)
    check_run_maps(run)
    cut = _of_one_block(run)
    return RunMaps(run.dense_dir, cut, texts, **default_options(MAP) | recipe_repairs(run, cut)[MAP])


def measures_as_repaired(run: Run) -> bool:
    """Return whether the search for blocks measures with linear maps; `auto` is where they can be fitted.

    How much memory is free does not decide, or another machine would choose other blocks.
    """
    wanted = run.recipe.prune.as_repaired
    if wanted != "auto":
        return wanted
    try:
        check_run_maps(run)
    except InputError:
        return False
    return run_maps_bytes(run) <= MAX_STATES_BYTES


def run_maps_bytes(run: Run) -> int:
    """Return the bytes of the states that these maps are fitted to."""
    itemsize = getattr(torch, run.dtype).itemsize
    return states_bytes(calibration_tokens(run), run.costs.sizes[LAYERS], run.costs.sizes[HIDDEN], itemsize)


def check_run_maps(run: Run) -> None:
    """Check that the recipe repairs whatever blocks are removed with linear maps, as `prune.as_repaired` measures it.

    Raises:
        InputError: it does not, or some blocks take no map.
    """
    cut = _of_one_block(run)
    check_every_block(run.dense_dir, cut)
    if MAP not in recipe_repairs(run, cut):
        raise InputError(omitted_repairs(run, cut) or f"prune.repairs has no {MAP}")


def _of_one_block(run: Run) -> Cut:
    return Cut.of(run.config, {LAYERS: list(range(run.costs.sizes[LAYERS] - 1))})


def _texts(run: Run, load: Callable[[], PreTrainedModel], scratch: Path) -> Calibration:
    return Calibration(
        load=load,
        # Every token counts: a repair needs many, and answers read what the model makes of prompts.
        batches=[{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in calibration(run)],
        cache_dir=scratch,
        progress=lambda batches: tqdm(batches, desc="repair", unit="batch"),
    )


def _head_scores(run: Run) -> Tensor:
    ranking = run.recipe.prune.ranking
    return Scores.load(run.folder.output("score", "scores")).heads(ranking.batch, ranking.sequence)
