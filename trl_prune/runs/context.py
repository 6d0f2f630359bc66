"""A run: its recipe, its folder, and what is resolved once for all stages."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import (
    PROVENANCE,
    best_device,
    check_causal_lm,
    dense_root,
    fingerprint,
    hub_commit,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    native_dtype,
    read_provenance,
    tensor_files,
)
from trl_prune.data.batches import sample
from trl_prune.data.formats import format_of, formats_of
from trl_prune.data.reading import RowError, dataset_commit, read_dataset
from trl_prune.data.rendering import TemplateAcceptance
from trl_prune.data.starter import starter_rows
from trl_prune.data.teacher import LazyTeacher, context_length
from trl_prune.data.tokenizer_checks import KnownTokens, check_tokenizer
from trl_prune.errors import InputError
from trl_prune.evaluation.efficiency import Size, measure_size
from trl_prune.evaluation.harness import EvaluationTasks, content_hash, load_tasks
from trl_prune.pruning.deriving.admission import admit
from trl_prune.pruning.families import Family
from trl_prune.pruning.keep import Keep, row_for
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.surgery.checkpoint import Repair, prune_checkpoint
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.pruning.surgery.text_tower import text_config
from trl_prune.recipe import DatasetSection, Recipe
from trl_prune.runs.artifacts import RunFolder, config_hash
from trl_prune.smollm2 import smollm2
from trl_prune.trainers.launching import Launch


QUICKSTART = "quickstart"
# The output of the stage that writes rows.
SYNTHESIZED_ROWS = "rows"
ROWS_PER_HASH_BLOCK = 1000


class Run:
    """A recipe, its run folder, and the models, tokenizer and datasets that it names.

    Attributes:
        recipe: the recipe.
        launch: how several processes are started; None for a single process.
        folder: the run folder.
    """

    def __init__(self, recipe: Recipe, launch: Launch | None = None):
        self.recipe, self.launch = recipe, launch
        self._sizes: dict[str, Size] = {}
        self._rows: dict[DatasetSection, Dataset] = {}
        self._fingerprints: dict[DatasetSection, str] = {}
        self.folder = RunFolder(Path(recipe.output).expanduser())

    @cached_property
    def dense_dir(self) -> Path:
        """The dense model's checkpoint folder; a hub id keeps the commit that it had when the run started."""
        if self.recipe.model == QUICKSTART:
            return smollm2()
        revision = self.recipe.revision or self.folder.notes().get("commit")
        return locate(self.recipe.model, revision)

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The dense model's config; a type without a row gets one here, if the recipe allows it.

        Raises:
            InputError: the checkpoint is no causal LM.
        """
        config = load_config(self.dense_dir)
        check_causal_lm(config)
        if self.recipe.prune.unproven:
            admit(config)
        return config

    @cached_property
    def root(self) -> dict:
        """The `dense` entry of every checkpoint's provenance."""
        name = str(self.dense_dir) if self.recipe.model == QUICKSTART else self.recipe.model
        return dense_root(self.dense_dir, name)

    @cached_property
    def teacher_dir(self) -> Path:
        """The teacher's checkpoint folder: the dense model, or its own root if it was pruned from another model.

        Of several pruning stages the first model is the best teacher of all (2407.14679: the 15B model teaches the 4B
        model that was pruned from the 8B one).

        Raises:
            InputError: the root that the provenance names cannot be found.
        """
        if read_provenance(self.dense_dir) is None:
            return self.dense_dir
        try:
            return locate(self.root["path"], self.root["commit"])
        except InputError as error:
            raise InputError(
                f"the model's {PROVENANCE} names its root, the teacher: {error} (write its present place to "
                "`dense.path` there)"
            ) from error

    @cached_property
    def teacher_fingerprint(self) -> str:
        """A hash that changes when the teacher's checkpoint does."""
        return fingerprint(self.teacher_dir)

    def load_teacher(self) -> PreTrainedModel:
        """Return the teacher, in eval mode and the run's dtype."""
        return load_model(self.teacher_dir, self.dtype, self.device)

    @cached_property
    def teacher(self) -> LazyTeacher:
        """The teacher, loaded when it is first used, with a tokenizer of its own: trainers change the run's."""
        length = context_length(load_config(self.teacher_dir))
        tokenizer = load_tokenizer(self.teacher_dir)
        return LazyTeacher(self.load_teacher, tokenizer, self.teacher_fingerprint, length, self.teacher_dir)

    @cached_property
    def dense_fingerprint(self) -> str:
        """A hash that changes when the dense checkpoint does."""
        return fingerprint(self.dense_dir)

    @cached_property
    def dense_bytes(self) -> int:
        """The size of the dense checkpoint's weights on disk, in bytes."""
        return sum(path.stat().st_size for path in set(tensor_files(self.dense_dir).values()))

    @cached_property
    def cut_config(self) -> PreTrainedConfig:
        """The config of the model that is written if nothing is cut: the dense one's, or that of its text tower.

        Raises:
            InputError: `prune.text_only`, and the model has no text tower that is a causal LM.
        """
        if not self.recipe.prune.text_only:
            return self.config
        try:
            return text_config(self.config)
        except InputError as error:
            raise InputError(f"prune.text_only: {error}") from error

    @cached_property
    def costs(self) -> Costs:
        """Parameters and bytes of models pruned from the dense one."""
        return Costs.of(self.cut_config, None if self.recipe.prune.text_only else self.dense_dir)

    @cached_property
    def family(self) -> Family:
        """The dense model's row."""
        return row_for(self.config)

    def prune_to(self, target: Path, keep: Keep, repairs: Sequence[Repair] = ()) -> None:
        """Write a checkpoint cut from the dense model."""
        text_only = self.recipe.prune.text_only
        prune_checkpoint(self.dense_dir, target, keep, self.root, repairs, text_only=text_only)

    def size(self, keep: Keep | None = None) -> Size:
        """Return the size of the dense model, or of the pruned one for a plan; each is counted once."""
        name = str(keep)
        if name not in self._sizes:
            self._sizes[name] = measure_size(meta_model(self.config if keep is None else self.cut_config, keep))
        return self._sizes[name]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The dense model's tokenizer, which all other models share.

        Raises:
            InputError: it cannot be read, or the model does not know the tokens that it adds.
        """
        tokenizer = load_tokenizer(self.dense_dir)
        vocabulary = self.config.get_text_config().vocab_size
        check_tokenizer(tokenizer, self.dense_dir, vocabulary, self.recipe.chat_template_kwargs)
        return tokenizer

    @property
    def device(self) -> str:
        """The device that models run on."""
        return best_device()

    @cached_property
    def dtype(self) -> str:
        """The dtype of all stages, which a resumed run does not choose again."""
        if self.recipe.dtype != "auto":
            return self.recipe.dtype
        return self.folder.notes().get("dtype") or native_dtype(self.device)[0]

    def describe_dtype(self) -> str:
        """Return the dtype and what chose it, in words."""
        if self.recipe.dtype != "auto":
            return f"{self.dtype}, by the recipe"
        chosen, reason = native_dtype(self.device)
        return f"{self.dtype}, {reason}" if chosen == self.dtype else f"{self.dtype}, as this run began"

    def record_choices(self) -> None:
        """Write to the run folder the recipe, and what a later start must not choose again: dtype and hub commits."""
        self.folder.write_recipe(self.recipe)
        commits = self.folder.notes().get("dataset_commits", {})
        for section in self.recipe.datasets:
            if section.path not in commits:
                commits |= {section.path: dataset_commit(section.path, section.revision)}
        self.folder.note(dtype=self.dtype, commit=hub_commit(self.dense_dir), dataset_commits=commits)

    @property
    def dataset(self) -> Dataset:
        """The recipe's training rows."""
        return self.rows(self.recipe.dataset)

    def rows(self, section: DatasetSection) -> Dataset:
        """Return the rows that a dataset section names, read once."""
        if section not in self._rows:
            self._rows[section] = self._read_rows(section)
        return self._rows[section]

    def _read_rows(self, section: DatasetSection) -> Dataset:
        if section.path == QUICKSTART:
            dataset = Dataset.from_list(starter_rows())
        elif section.is_synthesized:
            dataset = self._synthesized_rows(section)
        else:
            revision = section.revision or self.folder.notes().get("dataset_commits", {}).get(section.path)
            dataset = self._normal_rows(section, revision)
        if section.rows is not None:
            dataset = sample(dataset, section.rows, self.recipe.seed)
        return dataset

    def _synthesized_rows(self, section: DatasetSection) -> Dataset:
        """Return the rows that the dense model wrote; rows of their form before it does, for plans and checks."""
        if self.folder.result("synthesize") is None:
            row = {
                "prompt": [{"role": "user", "content": "a prompt"}],
                "completion": [{"role": "assistant", "content": "an answer"}],
            }
            return Dataset.from_list([row] * section.rows)
        return read_dataset(str(self.folder.output("synthesize", SYNTHESIZED_ROWS)))

    def forget_rows(self) -> None:
        """Read rows again when they are next asked for: a stage has written some."""
        self._rows.clear()
        self._fingerprints.clear()

    def _normal_rows(self, section: DatasetSection, revision: str | None) -> Dataset:
        """Return a dataset's rows in TRL's formats, each as the dense model's chat template accepts it."""
        templated = TemplateAcceptance(lambda: self.tokenizer, self.recipe.chat_template_kwargs)
        known = KnownTokens(lambda: self.tokenizer, self.config.get_text_config().vocab_size)
        on_error = self.recipe.rows.on_error
        try:
            return read_dataset(
                section.path, section.name, section.split, revision, on_error, lambda row: known(templated(row))
            )
        except RowError as error:
            hint = "; `rows: {on_error: skip}` leaves such rows out" if on_error == "stop" else ""
            raise InputError(f"{error}{hint}") from error

    @cached_property
    def dataset_format(self) -> str:
        """Which of TRL's formats the training rows have; the one with most structure where they have several."""
        return format_of(self.dataset.column_names, f"dataset {self.recipe.dataset.path!r}")

    @property
    def dataset_formats(self) -> str:
        """All of TRL's formats that training rows have."""
        return ", ".join(formats_of(self.dataset.column_names))

    @property
    def dataset_fingerprint(self) -> str:
        """A hash that changes when any training row does."""
        return self.fingerprint(self.recipe.dataset)

    def fingerprint(self, section: DatasetSection) -> str:
        """Return a hash that changes when any row of a dataset does, computed once."""
        if section not in self._fingerprints:
            self._fingerprints[section] = dataset_fingerprint(self.rows(section))
        return self._fingerprints[section]

    @cached_property
    def tasks(self) -> EvaluationTasks:
        """The recipe's lm-eval tasks, loaded once because lm-eval's index takes seconds to read."""
        return self.load_tasks("evaluate.tasks", self.recipe.evaluate.tasks)

    def load_tasks(self, key: str, names: list[str]) -> EvaluationTasks:
        """Return the lm-eval tasks that a recipe's key names.

        Raises:
            InputError: a name or a task is wrong; the sentence starts with the key.
        """
        try:
            return load_tasks(names, self.recipe.evaluate.include_path)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error

    @cached_property
    def tasks_hash(self) -> str:
        """A hash of all items of the recipe's tasks, computed once because it reads every item."""
        return content_hash(self.tasks)

    @property
    def apply_chat_template(self) -> bool:
        """Whether evaluation uses the chat template, the same for all models."""
        return applies_chat_template(self.recipe.evaluate.apply_chat_template, self.tokenizer)

    def model_dir(self, name: str) -> Path:
        """Return the checkpoint folder of a model of the recipe: `dense`, `pruned`, an arm or a merge."""
        return self.dense_dir if name == "dense" else self.folder.output(*self._made_as(name))

    def model_hash(self, name: str) -> str:
        """Return the hash by which a stage names a model as its input."""
        if name == "dense":
            return self.dense_fingerprint
        stage, _, part = self._made_as(name)
        return self.folder.result_hash(stage, part)

    def _made_as(self, name: str) -> tuple[str, str, str]:
        """Return stage, output and part that hold a model."""
        return self.recipe.stage_of(name), "model", "" if name == "pruned" else name

    def load(self, name: str) -> PreTrainedModel:
        """Return a model of the recipe, in eval mode and the run's dtype."""
        return load_model(self.model_dir(name), self.dtype, self.device)

    def load_for_scoring(self, folder: Path) -> PreTrainedModel:
        """Return a model to score, spread over devices and offloaded if `score.device_map` is `auto`."""
        return load_model(folder, self.dtype, self.device, offload=self.recipe.score.device_map == "auto")

    def seed_everything(self) -> None:
        """Seed Python and torch, so that a stage run alone draws what it draws in a whole run."""
        random.seed(self.recipe.seed)
        torch.manual_seed(self.recipe.seed)


def dataset_fingerprint(dataset: Dataset) -> str:
    """Return a hash of a dataset's columns and rows."""
    blocks = (dataset[start : start + ROWS_PER_HASH_BLOCK] for start in range(0, len(dataset), ROWS_PER_HASH_BLOCK))
    return config_hash([dataset.column_names, *blocks])


def applies_chat_template(setting: bool | str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether prompts use the chat template; `auto` uses it where the tokenizer has one."""
    return tokenizer.chat_template is not None if setting == "auto" else bool(setting)
