"""A candidate of the search as a checkpoint: pruned, trained rung by rung, and scored; an interrupted step resumes."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune.checkpoints import load_model
from trl_prune.data.batches import calibration_batches, sample, split_held_out
from trl_prune.data.teacher import within_context
from trl_prune.evaluation.harness import EvaluationTasks
from trl_prune.pruning.importance.skipped_layers import mean_loss
from trl_prune.pruning.search import ranked
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.runs.arms import arm_settings, train
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import mean_score
from trl_prune.runs.repairs import FITS, fitted_repairs
from trl_prune.runs.search_space import candidate_keep
from trl_prune.trainers.preparation import with_chat_template_kwargs


MODEL = "model"
# Texts per batch when a loss is measured; the loss does not depend on it.
BATCH_SIZE = 8
# Share of a rung's steps for learning-rate warmup, unless the recipe's `args` set it: each rung has a new optimizer.
WARMUP = 0.1
# Added to the recipe's seed, so that held-out rows are not those that the same seed draws for calibration.
HELD_OUT_SEED = 1


@dataclass
class Trials:
    """The candidates of one search, measured by name and rung.

    Attributes:
        run: the run.
        scratch: folder of the candidates' checkpoints.
        candidates: the candidates, by name.
        num_trained: number of candidates that will be trained; only as many untrained checkpoints are kept.
        progress: called after each measurement.
        untrained_scores: scores before training that this process measured, by name.
    """

    run: Run
    scratch: Path
    candidates: dict[str, Candidate]
    num_trained: int
    progress: Callable[[], object] = field(default=lambda: None)
    untrained_scores: dict[str, float] = field(default_factory=dict)

    def measure(self, name: str, rung: int) -> float:
        """Return a candidate's score after a rung (0: before any training); lower is better."""
        score = self.score(self.trained(name, rung) if rung else self.pruned(name))
        if not rung:
            self.untrained_scores[name] = score
            self.drop(ranked(self.untrained_scores)[self.num_trained :])
        self.progress()
        return math.inf if math.isnan(score) else score

    def pruned(self, name: str) -> Path:
        """Return a candidate's checkpoint before training, pruned and repaired as in the prune stage."""
        target = self.scratch / name / MODEL
        if not target.is_dir():
            cut = Cut.of(self.run.config, candidate_keep(self.run, self.candidates[name]))
            repairs_dir = self.scratch / name / FITS
            repairs = fitted_repairs(self.run, cut, repairs_dir)
            self.run.prune_to(target, cut.keep, repairs)
            shutil.rmtree(repairs_dir, ignore_errors=True)
        return target

    def trained(self, name: str, rung: int) -> Path:
        """Return a candidate's checkpoint after a rung; training starts from the previous rung's, which is deleted."""
        target = self.scratch / name / f"trained-{rung}"
        if target.is_dir():
            return target
        student = self.trained(name, rung - 1) if rung > 1 else self.pruned(name)
        section = self.run.recipe.search
        tokens = section.rungs[rung - 1] - (section.rungs[rung - 2] if rung > 1 else 0)
        # Each rung has its own seed: the same one would repeat the rows of the previous rung.
        args = {"seed": self.run.recipe.seed + rung - 1, "warmup_steps": WARMUP} | section.train.args
        arm = section.train.model_copy(update={"tokens": tokens, "args": args})
        settings = arm_settings(self.run, arm, student, self.scratch / name / f"rung-{rung}")
        rows = with_chat_template_kwargs(self.rows[1], self.run.recipe.chat_template_kwargs)
        train(self.run, settings, rows, target)
        shutil.rmtree(student)
        return target

    def score(self, model_dir: Path) -> float:
        """Return a checkpoint's mean loss on the held-out texts, or its negated mean score on the task."""
        model = load_model(model_dir, self.run.dtype, self.run.device)
        if self.run.recipe.search.score == "loss":
            return mean_loss(model, self.batches)
        return -mean_score(self.run, model, score_tasks(self.run))

    @cached_property
    def rows(self) -> tuple[Dataset, Dataset]:
        """The held-out rows, and the rows to train on."""
        return split_rows(self.run)

    @cached_property
    def batches(self) -> list[dict[str, torch.Tensor]]:
        """The held-out texts, as dicts of `(batch, tokens)` tensors."""
        length = within_context(self.run.recipe.search.max_length, self.run.config)
        return calibration_batches(self.rows[0], self.run.tokenizer, BATCH_SIZE, length)

    def drop(self, names: Collection[str]) -> None:
        """Delete the checkpoints of candidates that are not trained further."""
        for name in names:
            shutil.rmtree(self.scratch / name, ignore_errors=True)


def split_rows(run: Run) -> tuple[Dataset, Dataset]:
    """Return the rows whose loss ranks the candidates, and the rows that they are trained on."""
    section = run.recipe.search
    if section.dataset is not None:
        return sample(run.rows(section.dataset), section.samples, run.recipe.seed), run.dataset
    return split_held_out(run.dataset, section.samples, run.recipe.seed + HELD_OUT_SEED)


def score_tasks(run: Run) -> EvaluationTasks:
    """Return the lm-eval task or group whose score ranks the candidates."""
    return run.load_tasks("search.score", [run.recipe.search.score])
