"""Trying a candidate of the search: cut it, train it for a while, score it; every step is there after a kill."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune.checkpoints import load_model
from trl_prune.runs.context import Run
from trl_prune.data.batches import calibration_batches, held_out, sample
from trl_prune.evaluation.harness import Harness, find_tasks
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.pruning.importance.layers import mean_loss
from trl_prune.pruning.keep import Keep
from trl_prune.pruning.search import ranked
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.runs.evaluation import mean_score
from trl_prune.stages.recover import arm_plan, train
from trl_prune.runs.repairs import fitted_repairs


MODEL = "model"
# Texts at a time where a loss is measured; no part of what decides it.
BATCH_SIZE = 8
# Beneath the user's arguments: a rung's share of warm-up, as each starts with empty moments.
WARMUP = 0.1
# Added to the recipe's seed, so that held-out rows are not those that the same seed draws for calibration.
HELD_OUT_SEED = 1


@dataclass
class Trials:
    """The candidates of one search at work.

    Attributes:
        run: the recipe at work.
        scratch: where candidates lie while they are in the successive_halving.
        candidates: by name.
        keep_of: the units that a candidate keeps.
        places: how many candidates will be trained; of so many the untrained models are kept.
        progress: called after each measurement.
    """

    run: Run
    scratch: Path
    candidates: dict[str, Candidate]
    keep_of: Callable[[Candidate], Keep]
    places: int
    progress: Callable[[], object] = field(default=lambda: None)
    untrained: dict[str, float] = field(default_factory=dict)

    def measure(self, name: str, rung: int) -> float:
        """Return a candidate's score after a rung of training (0: none); lower is better."""
        score = self.score(self.trained(name, rung) if rung else self.pruned(name))
        if not rung:
            self.untrained[name] = score
            self.drop(ranked(self.untrained)[self.places :])
        self.progress()
        return math.inf if math.isnan(score) else score

    def pruned(self, name: str) -> Path:
        """Return a candidate's checkpoint before any training, cut and repaired as the prune stage does it."""
        target = self.scratch / name / MODEL
        if not target.is_dir():
            cut = Cut.of(self.run.config, self.keep_of(self.candidates[name]))
            fits = self.scratch / name / "repairs"
            prune_checkpoint(self.run.dense_dir, target, cut.keep, self.run.root, fitted_repairs(self.run, cut, fits))
            shutil.rmtree(fits, ignore_errors=True)
        return target

    def trained(self, name: str, rung: int) -> Path:
        """Return a candidate's checkpoint after a rung, trained on from the rung before, which is not kept."""
        target = self.scratch / name / f"trained-{rung}"
        if target.is_dir():
            return target
        student = self.trained(name, rung - 1) if rung > 1 else self.pruned(name)
        section = self.run.recipe.search
        tokens = section.rungs[rung - 1] - (section.rungs[rung - 2] if rung > 1 else 0)
        # Each rung sees rows in another order: the same seed would show the first rows again.
        args = {"seed": self.run.recipe.seed + rung - 1, "warmup_steps": WARMUP} | section.train.args
        arm = section.train.model_copy(update={"tokens": tokens, "args": args})
        train(self.run, arm_plan(self.run, arm, student, self.scratch / name / f"rung-{rung}"), self.rows[1], target)
        shutil.rmtree(student)
        return target

    def score(self, model: Path) -> float:
        """Return a checkpoint's mean loss on held-out texts, or minus its mean score on the task."""
        loaded = load_model(model, self.run.dtype, self.run.device)
        if self.run.recipe.search.score == "loss":
            return mean_loss(loaded, self.batches)
        return -mean_score(self.run, loaded, task_harness(self.run))

    @cached_property
    def rows(self) -> tuple[Dataset, Dataset]:
        """The held-out rows, and those to train on."""
        return split_rows(self.run)

    @cached_property
    def batches(self) -> list[dict[str, torch.Tensor]]:
        """The held-out texts."""
        return calibration_batches(self.rows[0], self.run.tokenizer, BATCH_SIZE, self.run.recipe.search.max_length)

    def drop(self, names: Collection[str]) -> None:
        """Delete what lies there of candidates that are out."""
        for name in names:
            shutil.rmtree(self.scratch / name, ignore_errors=True)


def split_rows(run: Run) -> tuple[Dataset, Dataset]:
    """Return the rows whose loss ranks, and the rows of the short trainings."""
    section = run.recipe.search
    if section.dataset is not None:
        return sample(run.rows(section.dataset), section.samples, run.recipe.seed), run.dataset
    return held_out(run.dataset, section.samples, run.recipe.seed + HELD_OUT_SEED)


def task_harness(run: Run) -> Harness:
    """Return the lm-eval task that ranks."""
    return find_tasks([run.recipe.search.score], run.recipe.evaluate.include_path)
