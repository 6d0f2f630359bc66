"""What the stages of one run share: the recipe, the folder, and what was resolved once."""

import random
from functools import cached_property
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.runs.artifacts import RunFolder, config_hash
from trl_prune.checkpoints import PROVENANCE, dense_root, read_provenance
from trl_prune.checkpoints import best_device, load_config, load_model, load_tokenizer
from trl_prune.checkpoints import fingerprint
from trl_prune.checkpoints import hub_commit, locate, tensor_files
from trl_prune.recipe import DatasetSection
from trl_prune.recipe import Recipe
from trl_prune.data.reading import dataset_commit, read_dataset
from trl_prune.data.formats import format_of
from trl_prune.data.batches import sample
from trl_prune.data.starter import starter_rows
from trl_prune.errors import InputError
from trl_prune.evaluation.efficiency import Size, faster_dtype, measure_size
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.keep import Keep
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.smollm2 import smollm2
from trl_prune.trainers.launching import Launch


QUICKSTART = "quickstart"


class Run:
    """A recipe at work in its folder."""

    def __init__(self, recipe: Recipe, launch: Launch | None = None):
        """Set a recipe to work.

        Args:
            recipe: what is to be done.
            launch: how training starts, where it takes several processes.
        """
        self.recipe, self.launch = recipe, launch
        self._sizes: dict[str, Size] = {}
        self.folder = RunFolder(Path(recipe.output).expanduser())

    @cached_property
    def dense_dir(self) -> Path:
        """The dense model's checkpoint folder; a hub id keeps the commit it had when the run began."""
        if self.recipe.model == QUICKSTART:
            return smollm2()
        revision = self.recipe.revision or self.folder.notes().get("commit")
        return locate(self.recipe.model, revision)

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The dense model's config."""
        return load_config(self.dense_dir)

    @cached_property
    def root(self) -> dict:
        """The `dense` entry of every checkpoint's provenance."""
        return dense_root(
            self.dense_dir, str(self.dense_dir) if self.recipe.model == QUICKSTART else self.recipe.model
        )

    @cached_property
    def teacher_dir(self) -> Path:
        """Whose answers the student learns: the dense model's, or its root's where it was itself cut from another.

        Cutting a cut recovers best under the first teacher (2407.14679: 15B teaches the 4B that was cut from 8B).
        """
        if read_provenance(self.dense_dir) is None:
            return self.dense_dir
        try:
            return locate(self.root["path"], self.root["commit"])
        except InputError as error:
            raise InputError(f"the model's {PROVENANCE} names its root, which teaches: {error}") from error

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Changes when the teacher does."""
        return fingerprint(self.teacher_dir)

    def load_teacher(self) -> PreTrainedModel:
        """Return the teacher, in eval mode, in the run's arithmetic."""
        return load_model(self.teacher_dir, self.dtype, self.device)

    @cached_property
    def dense_fingerprint(self) -> str:
        """Changes when the dense checkpoint does."""
        return fingerprint(self.dense_dir)

    @cached_property
    def dense_bytes(self) -> int:
        """The dense checkpoint's weights on disk, in bytes."""
        return sum(path.stat().st_size for path in set(tensor_files(self.dense_dir).values()))

    @cached_property
    def costs(self) -> Costs:
        """What models cut from the dense one cost."""
        return Costs.of(self.config, self.dense_dir)

    def size(self, keep: Keep | None = None) -> Size:
        """Return the size of the dense model, or of what a cut leaves of it; counted once for each cut."""
        name = str(keep)
        if name not in self._sizes:
            self._sizes[name] = measure_size(meta_model(self.config, keep))
        return self._sizes[name]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The dense model's tokenizer, which all later models share."""
        return load_tokenizer(self.dense_dir)

    @property
    def device(self) -> str:
        """Where models run."""
        return best_device()

    @cached_property
    def dtype(self) -> str:
        """The arithmetic of all stages, the same after a resume as before."""
        if self.recipe.dtype != "auto":
            return self.recipe.dtype
        noted = self.folder.notes().get("dtype")
        return noted or self._chosen_dtype()

    def _chosen_dtype(self) -> str:
        if self.device == "cuda":
            return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        return faster_dtype(load_model(self.dense_dir, "float32", "cpu"))

    def record_choices(self) -> None:
        """Note in the run folder what later starts must not choose anew."""
        search = self.recipe.search
        sections = [self.recipe.dataset, self.recipe.score.dataset, search and search.dataset]
        commits = self.folder.notes().get("dataset_commits", {})
        for section in sections:
            if section is not None and section.path not in commits:
                commits |= {section.path: dataset_commit(section.path, section.revision)}
        self.folder.note(dtype=self.dtype, commit=hub_commit(self.dense_dir), dataset_commits=commits)

    @cached_property
    def dataset(self) -> Dataset:
        """The recipe's training rows."""
        return self.rows(self.recipe.dataset)

    def rows(self, section: DatasetSection) -> Dataset:
        """Return the rows a dataset section names."""
        if section.path == QUICKSTART:
            dataset = Dataset.from_list(starter_rows())
        else:
            revision = section.revision or self.folder.notes().get("dataset_commits", {}).get(section.path)
            dataset = read_dataset(section.path, section.name, section.split, revision)
        if section.rows is not None:
            dataset = sample(dataset, section.rows, self.recipe.seed)
        return dataset

    @cached_property
    def dataset_format(self) -> str:
        """Which of TRL's formats the training rows have."""
        return format_of(self.dataset.column_names, f"dataset {self.recipe.dataset.path!r}")

    @cached_property
    def dataset_fingerprint(self) -> str:
        """Changes when any training row does."""
        return dataset_fingerprint(self.dataset)

    @property
    def apply_chat_template(self) -> bool:
        """Whether evaluation speaks through the chat template, for every model alike."""
        told = self.recipe.evaluate.apply_chat_template
        return self.tokenizer.chat_template is not None if told == "auto" else told

    def model_dir(self, name: str) -> Path:
        """Return the checkpoint folder of a model of the recipe: `dense`, `pruned` or an arm."""
        if name == "dense":
            return self.dense_dir
        if name == "pruned":
            return self.folder.output("prune", "model")
        return self.folder.output("recover", "model", name)

    def model_hash(self, name: str) -> str:
        """Return the hash by which a model is named as an input."""
        if name == "dense":
            return self.dense_fingerprint
        return self.folder.result_hash("prune") if name == "pruned" else self.folder.result_hash("recover", name)

    def load(self, name: str) -> PreTrainedModel:
        """Return a model of the recipe, in eval mode, in the run's arithmetic."""
        return load_model(self.model_dir(name), self.dtype, self.device)

    def load_for_scoring(self, folder: Path) -> PreTrainedModel:
        """Return a model to be scored, spread over devices and memory where the recipe says so."""
        return load_model(folder, self.dtype, self.device, self.recipe.score.device_map == "auto")

    def seed_everything(self) -> None:
        """Seed the draws of a stage, so that a stage run alone draws what it draws in a whole run."""
        random.seed(self.recipe.seed)
        torch.manual_seed(self.recipe.seed)


def dataset_fingerprint(dataset: Dataset) -> str:
    """Return a hash of a dataset's rows."""
    return config_hash(
        [dataset.column_names, *(dataset[start : start + 1000] for start in range(0, len(dataset), 1000))]
    )
