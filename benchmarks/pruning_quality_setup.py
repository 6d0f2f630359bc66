"""The dense model, its scores and the texts of pruning_quality.py."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from trl_prune.checkpoints import load_config, load_model, load_tokenizer, locate
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.losses import MeasuredLosses
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, family_of
from trl_prune.pruning.importance.scores import Scores, score
from trl_prune.pruning.keep import axis_sizes
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.repairs.moments import Moments
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.runs.ledger import Ledger
from trl_prune.smollm2 import smollm2


LENGTH, ROWS_PER_BATCH = 512, 4
# Metrics that try cuts run on fewer texts.
TRIAL_BATCHES = 1


class CachedCalibration(Calibration):
    """Stores the moments of every input on disk, because the benchmark cuts the same model many times."""

    def input_moments(self, sizes):
        """Yield moments, computed once for each input."""
        missing = {name: size for name, size in sizes.items() if not self._file(name).is_file()}
        for name, moments in super().input_moments(missing):
            count = torch.tensor(moments.count)
            save_file({"gram": moments.gram, "total": moments.total, "count": count}, self._file(name))
        for name in sizes:
            sums = load_file(self._file(name))
            yield name, Moments(sums["gram"], sums["total"], int(sums["count"]))

    def norm_energies(self, names):
        """Return energies, computed once for all norms over a cut axis."""
        path = self.cache_dir / "energies"
        if not path.is_file():
            self.cache_dir.mkdir(exist_ok=True)
            save_file(super().norm_energies(names), path)
        return load_file(path)

    def _file(self, name):
        self.cache_dir.mkdir(exist_ok=True)
        return self.cache_dir / f"{name}.moments"


@dataclass
class Setup:
    """The dense model, its scores, and the calibration and evaluation texts."""

    args: argparse.Namespace
    source: Path = field(init=False)

    def __post_init__(self):
        self.source = locate(self.args.model) if self.args.model else smollm2()
        self.output = Path(self.args.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.config = load_config(self.source)
        self.family = family_of(self.config.model_type)
        self.sizes = axis_sizes(self.config, self.family)
        tokenizer = load_tokenizer(self.source)
        self.texts = windows(tokenizer, self.args.calibration, self.args.calibration_tokens)
        self.held_out = windows(tokenizer, self.args.evaluation, self.args.evaluation_tokens)
        self.dense = load_model(self.source, self.args.dtype)
        self.scores = self._scores()
        self.calibration = CachedCalibration(
            lambda: self.dense, self.texts, self.output / "fits", head_scores=self.scores.heads()
        )
        self.states = [self.dense.get_decoder()(**batch, use_cache=False)[0] for batch in self.held_out]

    def _scores(self):
        path = self.output / "scores.safetensors"
        if not path.is_file():
            score(self.dense, tqdm(self.texts, desc="score")).save(path)
        return Scores.load(path)

    def count(self, sizes):
        """Return the number of parameters of a model of the given sizes."""
        keep = {axis: first_units(axis, size, self.sizes) for axis, size in sizes.items()}
        return sum(weight.numel() for weight in meta_model(self.config, keep).parameters())

    def effect(self, name):
        """Return the losses without given blocks on a few texts; every value is stored."""
        effect = EFFECTS[name](self.dense, self.texts[:TRIAL_BATCHES])
        return MeasuredLosses(effect, Ledger(self.output / f"{name}-sums.json"))


def windows(tokenizer, path, tokens):
    """Return the first tokens of a text as batches of complete windows."""
    ids = torch.tensor(tokenizer(Path(path).read_text(), truncation=True, max_length=tokens)["input_ids"])
    ids = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids.split(ROWS_PER_BATCH)]


def first_units(axis, size, sizes):
    """Return one axis of a plan of the given size, for counting; heads are spread evenly over the KV heads."""
    kept = list(range(size))
    if axis == HEADS:
        group_size, kept_per_group = sizes[HEADS] // sizes[KV_HEADS], size // sizes[KV_HEADS]
        kept = [group * group_size + head for group in range(sizes[KV_HEADS]) for head in range(kept_per_group)]
    return kept if axis in (LAYERS, HIDDEN) else [kept] * sizes[LAYERS]
