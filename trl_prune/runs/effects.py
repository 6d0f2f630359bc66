"""Which blocks to remove by the measured effect on the recipe's calibration texts or on an lm-eval task."""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.evaluation.harness import EvaluationTasks
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.losses import Cost, Effect, MeasuredLosses, expected_cost
from trl_prune.pruning.choosing.removal import REMOVAL_STRATEGIES, Choice, SearchOptions
from trl_prune.pruning.choosing.shared_runs import InPlaceOf
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import mean_score
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.repairs import measures_as_repaired, run_maps
from trl_prune.runs.scoring import calibration, expected_texts


# What was measured, and what the finished search found and cost.
MEASUREMENTS, FOUND = "effects.json", "blocks_by_effect.json"


def removed_by_effect(run: Run, num_kept: int, folder: Path) -> list[int]:
    """Return the blocks whose removal costs least; every measurement is stored, so that an interrupted search resumes.

    Args:
        run: the run.
        num_kept: blocks to keep.
        folder: the stage's folder, where the search's cost is written as well (`search_cost`).
    """
    section, num_layers = run.recipe.prune, run.costs.sizes[LAYERS]
    count = num_layers - num_kept
    effect = measured_effect(run, run.load_for_scoring(run.dense_dir))
    options = search_options(run)
    total = _search_cost(run, count, len(effect.tokens)).choices
    with tqdm(total=total, desc=f"prune by {section.by}", unit="choice") as bar:
        losses = MeasuredLosses(effect, Ledger(folder / MEASUREMENTS), bar.update)
        removed = REMOVAL_STRATEGIES[section.strategy](losses, num_layers, count, options)
        (loss,) = losses([removed])
    write_json(folder / FOUND, _as_json(run, removed, loss, losses.cost))
    return list(removed)


def _as_json(run: Run, removed: Choice, loss: float, cost: Cost) -> dict:
    section = run.recipe.prune
    passes = round(cost.dense_passes(run.costs.sizes[LAYERS]), 2)
    found = {"by": section.by, "strategy": section.strategy, "removed": list(removed), "loss": loss}
    found |= {"as_repaired": True} if measures_as_repaired(run) else {}
    return found | {"cost": asdict(cost) | {"dense_passes": passes}}


def found_by_effect(folder: Path) -> dict | None:
    """Return what a finished search found: `removed`, their `loss`, and its `cost`; None where there was no search.

    With `as_repaired` the loss is that with linear maps.

    The cost has the number of `choices` measured, `block_tokens` (forward passes of one block times the tokens that
    went through it), the `tokens` of all texts and `dense_passes`, the cost in passes of the dense model over these.
    """
    path = folder / FOUND
    return json.loads(path.read_text()) if path.is_file() else None


def search_options(run: Run) -> SearchOptions:
    """Return how the recipe's strategy searches."""
    section = run.recipe.prune
    given = {"beam_width": section.beam_width, "generations": section.generations}
    return SearchOptions(seed=run.recipe.seed, **{name: value for name, value in given.items() if value is not None})


def describe_search(run: Run, num_kept: int) -> str:
    """Return what the search for blocks is expected to cost, in words.

    Args:
        run: the run.
        num_kept: blocks to keep.
    """
    section, num_layers = run.recipe.prune, run.costs.sizes[LAYERS]
    on_texts = section.by in EFFECTS
    num_texts = min(section.texts or math.inf, expected_texts(run))
    num_parts = _num_batches(run, num_texts) if on_texts else 1
    cost = _search_cost(run, num_layers - num_kept, num_parts)
    passes = f", {cost.dense_passes(num_layers):,.1f} passes of the dense model over the texts" * on_texts
    repaired = " with linear maps in the place of what they remove" * measures_as_repaired(run)
    return f"{section.strategy} search: about {cost.choices:,} choices of blocks measured{repaired}{passes}"


def _search_cost(run: Run, count: int, num_parts: int) -> Cost:
    """Return what the recipe's search for so many blocks is expected to cost, on texts of one token for each part."""
    options, as_repaired = search_options(run), measures_as_repaired(run)
    strategy, num_layers = run.recipe.prune.strategy, run.costs.sizes[LAYERS]
    return _expected_cost(strategy, num_layers, count, num_parts, options, as_repaired)


_expected_cost = lru_cache(maxsize=8)(expected_cost)


def measured_effect(run: Run, model: PreTrainedModel) -> Effect:
    """Return the effect by which the recipe chooses blocks; its losses are lower where a choice is better."""
    section = run.recipe.prune
    # The texts first: where they are the model's answers, only those that exist tell whether maps can be fitted.
    batches = _measured_batches(run) if section.by in EFFECTS or section.as_repaired else []
    in_place_of = run_maps(run, model).in_place_of if measures_as_repaired(run) else None
    if section.by in EFFECTS:
        return EFFECTS[section.by](model, batches, in_place_of)
    return TaskEffect(run, model, effect_tasks(run), in_place_of)


def _measured_batches(run: Run) -> list[dict[str, torch.Tensor]]:
    """Return the calibration batches that an effect is measured on, evenly spaced: they may be sorted by length."""
    batches, texts = calibration(run), run.recipe.prune.texts
    count = len(batches) if texts is None else min(_num_batches(run, texts), len(batches))
    return [batches[index * len(batches) // count] for index in range(count)]


def _num_batches(run: Run, texts: int) -> int:
    return max(-(-texts // run.recipe.score.batch_size), 1)


class TaskEffect:
    """The negated mean score over lm-eval tasks, as `losses.Effect`: one part, whose tokens are not counted."""

    tokens, at_once = (0,), 1

    def __init__(
        self, run: Run, model: PreTrainedModel, tasks: EvaluationTasks, in_place_of: InPlaceOf | None = None
    ) -> None:
        self._run, self._model, self._tasks = run, model, tasks
        self._in_place_of = in_place_of or (lambda _: nullcontext())

    def sums(self, part: int, choices: Sequence[Choice]) -> list[tuple[float, int]]:  # noqa: ARG002
        """Return the negated score without each choice's blocks."""
        return [(self._loss(choice), 1) for choice in choices]

    def block_runs(self, choices: Sequence[Choice]) -> int:  # noqa: ARG002
        """Return 0: what a task runs is not counted."""
        return 0

    def _loss(self, removed: Choice) -> float:
        with layers_skipped(self._model, removed), self._in_place_of(removed):
            return -mean_score(self._run, self._model, self._tasks)


def effect_tasks(run: Run) -> EvaluationTasks:
    """Return the lm-eval task or group by which blocks are chosen.

    Raises:
        InputError: no task has that name.
    """
    return run.load_tasks("prune.by", [run.recipe.prune.by.removeprefix("task:")])
