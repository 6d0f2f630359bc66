"""The `merge` section as plain arguments: models, base, parameters and the search on dev texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.checkpoints import load_config, load_model, load_tokenizer, write_text
from trl_prune.data.batches import calibration_batches
from trl_prune.data.reading import normal_dataset, read_dataset
from trl_prune.data.teacher import context_length
from trl_prune.errors import InputError
from trl_prune.evaluation.forgetting import measure_forgetting
from trl_prune.merging.fit import check_distinct, check_planned
from trl_prune.merging.inputs import find_model, input_hash, unadapted
from trl_prune.merging.merge import CONFIG, check_folders, check_models, merge_models
from trl_prune.merging.mergekit_run import check_mergeable
from trl_prune.merging.plan import MergePlan
from trl_prune.merging.recipes import MergeRecipe
from trl_prune.merging.search import WeightSearch, check_searchable
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.recipe import MergeSection, Recipe
from trl_prune.recipe.speculate import is_model_name
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import MAX_TOKENS, held_out_length
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.pruning_plan import planned_keep
from trl_prune.runs.unseen_texts import check_unseen


PRUNED = "pruned"
SEARCHED_YET = f"t or the weights are searched; run the merge first, whose folder has {CONFIG}"
# Dev texts per batch, without a run.
BATCH_SIZE = 16


def merge_base(section: MergeSection) -> str | None:
    """Return the base as the recipe names it: the pruned model where the merge recipe takes one and none is named."""
    return section.base or (PRUNED if MergeRecipe.load(section.recipe).takes_base else None)


def merged_models(section: MergeSection) -> list[str]:
    """Return the models of a merge, and its base, as the recipe names them."""
    base = merge_base(section)
    return [*section.models, *([] if base is None else [base])]


def merge_plan(run: Run, name: str) -> MergePlan:
    """Return a merge of the recipe whose models exist.

    Raises:
        InputError: they do not fit the merge recipe.
    """
    section = run.recipe.merges[name]
    base = merge_base(section)
    try:
        return MergePlan.of(
            section.recipe,
            [_folder(run, model) for model in section.models],
            None if base is None else _folder(run, base),
            section.given_parameters,
            run.recipe.seed,
        )
    except InputError as error:
        raise InputError(f"merge.{name}: {error}") from error


def _folder(run: Run, model: str) -> Path:
    return run.model_dir(model) if is_model_name(model) else find_model(model)


def model_hashes(run: Run, name: str) -> dict[str, str]:
    """Return the hash of each model of a merge, and of its base, by the name that the recipe has for it."""
    return {
        model: run.model_hash(model) if is_model_name(model) else input_hash(find_model(model))
        for model in merged_models(run.recipe.merges[name])
    }


def weight_search(run: Run, name: str, ledger: Path) -> WeightSearch | None:
    """Return how t or the weights of a merge are searched, or None where they are given.

    Args:
        run: the run.
        name: the merge.
        ledger: the file of the losses, with which an interrupted search goes on.
    """
    section = run.recipe.merges[name]
    if section.searched is None:
        return None
    loss = text_loss(
        run.rows(section.dev), run.tokenizer, run.dtype, run.recipe.evaluate.batch_size, held_out_length(run)
    )
    return WeightSearch(loss, section.searched.grid, section.searched.refine, Ledger(ledger))


def text_loss(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, dtype: str, batch_size: int, max_length: int
) -> Callable[[Path], float]:
    """Return a function from a checkpoint's folder to its mean cross-entropy on texts, in nats per token.

    Args:
        rows: the texts, in one of TRL's formats.
        tokenizer: the models' tokenizer.
        dtype: the dtype that models are loaded in.
        batch_size: texts per batch.
        max_length: tokens of a text that are read.
    """
    batches = calibration_batches(rows, tokenizer, batch_size, max_length)

    def loss(folder: Path) -> float:
        model = load_model(folder, dtype)
        return measure_forgetting(model, model, batches).cross_entropy

    return loss


def check_merges(run: Run) -> None:
    """Check the merges against their merge recipes, the models that exist already, and dev texts for rows seen before.

    Raises:
        InputError: something does not fit.
    """
    for name, section in run.recipe.merges.items():
        try:
            _check_merge(run, section)
        except InputError as error:
            raise InputError(f"merge.{name}: {error}") from error
        if section.dev is not None:
            held_out = run.recipe.evaluate.held_out
            others = {} if held_out is None else {held_out: "which is evaluate.held_out, that models are compared on"}
            check_unseen(run, f"merge.{name}.dev", section.dev, others)


def _check_merge(run: Run, section: MergeSection) -> None:
    recipe = MergeRecipe.load(section.recipe)
    recipe.check(len(section.models), merge_base(section) is not None, section.given_parameters)
    if section.searched is not None:
        check_searchable(recipe, len(section.models), section.given_parameters)
    _check_names(section.models)
    _check_folders(run, merged_models(section))


def _check_folders(run: Run, models: Sequence[str]) -> None:
    """Check that the models that exist fit together, and fit the plan of those that are made by the run."""
    given = [find_model(model) for model in models if not is_model_name(model)]
    if len(given) < len(models):
        check_mergeable(run.dense_dir)
    if not given:
        return
    folders = check_folders(given)
    if len(given) < len(models):
        check_planned(folders[0], run.dense_dir, meta_model(run.config, planned_keep(run)))


def _check_names(models: Sequence[str]) -> None:
    named = [model for model in models if is_model_name(model)]
    twice = next((model for model in named if named.count(model) > 1), None)
    if twice is not None:
        raise InputError(f"models has {twice!r} twice; name it once, with a larger weight")
    folders = [find_model(model) for model in models if not is_model_name(model)]
    if folders:
        check_distinct(folders)


def merges_as_yaml(recipe: Recipe) -> dict[str, str]:
    """Return the merges of a recipe, whose models exist, by name, each as YAML for mergekit's own command.

    Raises:
        InputError: there are none, a model does not exist yet, or a search has not been made yet.
    """
    if not recipe.merges:
        raise InputError("the recipe's `merge` section names nothing to do")
    run = Run(recipe)
    return {name: _as_yaml(run, name) for name in recipe.merges}


def _as_yaml(run: Run, name: str) -> str:
    if run.recipe.merges[name].searched is None:
        return merge_plan(run, name).to_yaml()
    if run.folder.result("merge", name) is None:
        raise InputError(f"merge.{name}: {SEARCHED_YET}")
    return (run.model_dir(name) / CONFIG).read_text(encoding="utf-8")


def printed_merges(recipe: Recipe, output: str | None) -> str:
    """Return the YAML of a recipe's merge, or write those of several, because mergekit reads one merge from a file.

    Args:
        recipe: the recipe, whose models exist.
        output: the folder in which to write `NAME.yaml` for each merge; None to return that of one.

    Returns:
        The YAML, or the path of each file.

    Raises:
        InputError: there are none, several without a folder, or one that cannot be written as YAML yet.
    """
    merges = merges_as_yaml(recipe)
    if output is None and len(merges) > 1:
        raise InputError(
            f"`merge` names {len(merges)} merges, and mergekit reads one from a file; give --output FOLDER "
            "for a file each"
        )
    if output is None:
        return next(iter(merges.values()))
    paths = {name: Path(output).expanduser() / f"{name}.yaml" for name in merges}
    for name, text in merges.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        write_text(paths[name], text)
    return "".join(f"{path}\n" for path in paths.values())


def _new_folder(output: Path) -> Path:
    target = output.expanduser().absolute()
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"output {str(output)!r} is there already and is not overwritten; name a new folder")
    return target


@dataclass(frozen=True)
class MergeCall:
    """A merge of folders, without a run.

    Attributes:
        plan: what is merged, how.
        dev: the dev texts of a search; None where t or the weights are given.
    """

    plan: MergePlan
    dev: Dataset | None = None

    @classmethod
    def of(
        cls,
        recipe: str,
        models: Sequence[str | Path],
        base: str | Path | None = None,
        dev: str | Path | Dataset | None = None,
        **parameters: object,
    ) -> "MergeCall":
        """Return a merge after checking everything that can be checked before it starts.

        Args:
            recipe: a shipped merge recipe's name or the path of a YAML.
            models: paths or hub ids of models, or paths of LoRA adapters.
            base: the model that all were trained from, likewise.
            dev: texts of a search, as a path, a hub id or a `datasets.Dataset`.
            parameters: the merge recipe's parameters, and `seed`.

        Raises:
            InputError: one sentence that names the wrong value.
        """
        seed = parameters.pop("seed", 0)
        if not isinstance(seed, int):
            raise InputError(f"seed is {seed!r}; wanted: an integer")
        if parameters.get("t") == "auto":
            del parameters["t"]
            if dev is None:
                raise InputError("t is 'auto', which is found on texts that no model has seen; give them as `dev`")
        plan = MergePlan.of(recipe, models, base, parameters, seed)
        if dev is None:
            return cls(plan)
        check_searchable(plan.recipe, len(models), parameters)
        return cls(plan, normal_dataset(dev) if isinstance(dev, Dataset) else read_dataset(str(dev)))

    def run(self, output: Path) -> dict[str, object]:
        """Write the merged checkpoint and return what its `merge.json` holds.

        Args:
            output: the folder to write, atomically.

        Raises:
            InputError: the models do not fit together, or the folder is there already.
        """
        target = _new_folder(output)
        return merge_models(self.plan, target, self._search())

    def check(self, output: Path | None) -> None:
        """Check what can be checked without merging.

        Args:
            output: the folder to write; None if it is not given yet.

        Raises:
            InputError: the models do not fit together, or the folder is there already.
        """
        check_models(self.plan)
        if output is not None:
            _new_folder(output)

    def describe(self) -> str:
        """Return what will be merged, how."""
        given = [f"{name} {value}" for name, value in self.plan.parameters.items()]
        base = [] if self.plan.base is None else [f"base {self.plan.base}"]
        searched = [] if self.dev is None else [f"searched on {len(self.dev):,} dev texts"]
        models = " and ".join(map(str, self.plan.models))
        return ", ".join([f"{self.plan.recipe.name} of {models}", *base, *given, *searched])

    def to_yaml(self) -> str:
        """Return the merge as YAML for mergekit's own command.

        Raises:
            InputError: t or the weights are searched.
        """
        if self.dev is not None:
            raise InputError(SEARCHED_YET)
        return self.plan.to_yaml()

    def _search(self) -> WeightSearch | None:
        if self.dev is None:
            return None
        folder = unadapted(self.plan.models[0])
        length = min(MAX_TOKENS, context_length(load_config(folder)) or MAX_TOKENS)
        return WeightSearch(text_loss(self.dev, load_tokenizer(folder), "auto", BATCH_SIZE, length))
