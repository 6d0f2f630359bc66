"""The verbs as functions with plain arguments, for notebooks and scripts."""

import json
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel

from trl_prune.checkpoints import (
    dense_root,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    weights_fingerprint,
)
from trl_prune.data.batches import calibration_batches, sample
from trl_prune.data.formats import format_of
from trl_prune.data.generation import Sampling
from trl_prune.data.reading import read_dataset
from trl_prune.data.rewriting.rewrite import rewrite_rows
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Codec, codec_of
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import EvaluationSettings, evaluate_task, find_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.choosing.units import MEASURED_BEST, Ranking, choose_keep
from trl_prune.pruning.families import family_of
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.importance.scores import score as score_units
from trl_prune.pruning.repairs import fitting_repairs, repairs_for
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.recipe import load_recipe, parse_recipe
from trl_prune.trainers.preparation import PREPARATION, prepare_rows


Model = str | Path | PreTrainedModel
Rows = str | Path | Dataset


def run(recipe: str | Path | dict, **overrides: object) -> Path:
    """Run a recipe file, or a recipe given as nested mappings, and return its run folder.

    Args:
        recipe: a YAML file or the recipe itself.
        overrides: whole sections to replace, by name.

    Raises:
        InputError: one sentence about what in the recipe is wrong.
    """
    if isinstance(recipe, dict):
        parsed = parse_recipe(recipe | overrides, "the recipe")
    else:
        given = load_recipe(Path(recipe), [])
        parsed = parse_recipe(given.model_dump(mode="json", exclude_unset=True) | overrides, str(recipe))
    return run_recipe(parsed).folder.path


def score(model: Model, dataset: Rows, samples: int = 256, tokens: str = "all", seed: int = 0) -> Scores:
    """Return how much every block, head, neuron, channel and expert matters, from one forward pass over texts.

    Args:
        model: a path, a hub id or a loaded model.
        dataset: a path, a hub id or a `datasets.Dataset` in one of TRL's formats.
        samples: texts to draw.
        tokens: which positions the distances between blocks are of: `all`, or `last` (each text's last token).
        seed: for the draw.
    """
    loaded, tokenizer = _model(model), load_tokenizer(_folder(model))
    rows = sample(_rows(dataset), samples, seed)
    batches = calibration_batches(rows, tokenizer, 8, 512)
    return score_units(loaded, batches, tokens)


def search(
    model: str | Path, dataset: Rows, output: str | Path, budget: dict[str, float], **settings: object
) -> tuple[dict[str, list], list[dict]]:
    """Return the plan of the size within a budget that recovers best, and every candidate's scores.

    The race goes on where an interrupted one with the same arguments stopped.

    Args:
        model: a path or a hub id.
        dataset: a path, a hub id or a `datasets.Dataset` in one of TRL's formats: calibration, training and held-out
            texts.
        output: the folder of the race.
        budget: one of `parameters`, `share`, `bytes` and `memory` (with `batch` and `context`), and `tolerance`.
        settings: the other keys of a recipe's `search` section, such as `grid`, `rungs`, `train`; and `seed`, `dtype`
            and `score`'s settings as `calibration`.

    Returns:
        `keep`, the winner's units by axis, counted in the model; and one entry a candidate, the best first:
        `{name, sizes, parameters, cost, scores}`, with the score before any training and after each rung.

    Raises:
        InputError: one sentence: nothing fits the budget, or what else is wrong.
    """
    values = {"model": str(model), "dataset": {"path": _path_of(dataset, Path(output))}, "output": str(output)}
    values |= {name: settings.pop(name) for name in ("seed", "dtype") if name in settings}
    values |= {"score": settings.pop("calibration", {}), "prune": {"by": "search"}}
    recipe = parse_recipe(values | {"search": {"budget": budget, **settings}}, "search's arguments")
    folder = run_recipe(recipe, ["score", "search"]).folder
    keep, found = (json.loads(folder.output("search", name).read_text()) for name in ("keep", "candidates"))
    return keep, found["candidates"]


def prune(  # noqa: PLR0913
    model: str | Path,
    output: str | Path,
    keep: Mapping[str, list] | None = None,
    sizes: Mapping[str, int] | None = None,
    scores: Scores | None = None,
    by: Ranking = MEASURED_BEST,
) -> Path:
    """Write a smaller checkpoint and return its folder.

    After a cut of hidden channels norms are rescaled, which needs no texts. Repairs that are fitted on texts, and the
    model card, come with a recipe's `prune`.

    Args:
        model: a path or a hub id.
        output: the folder to write; it appears whole or not at all.
        keep: which units of each axis stay, as in `{"num_hidden_layers": [0, 1, 5]}`; or else `sizes`:
        sizes: how many units of each axis stay, as in `{"intermediate_size": 1024}`, chosen by `scores`.
        scores: what `score` returned.
        by: how units are ranked; where left out, as recipes rank them.

    Raises:
        InputError: a model type without a row, or a cut that does not fit the model.
    """
    target = Path(output)
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"output {str(target)!r} is there already and is not overwritten; name a new folder")
    folder = locate(str(model))
    plan = keep if keep is not None else _chosen(load_config(folder), sizes, scores, by)
    cut = Cut.of(load_config(folder), plan)
    rescaled = {"norm_rescale": {}} if "norm_rescale" in fitting_repairs(folder, cut) else {}
    repairs = repairs_for(rescaled, folder, cut, Calibration(lambda: load_model(folder, "auto"), [], target.parent))
    prune_checkpoint(folder, target, plan, dense_root(folder, str(model)), repairs)
    return target


def _chosen(
    config: PreTrainedConfig, sizes: Mapping[str, int] | None, scores: Scores | None, by: Ranking
) -> Mapping[str, list]:
    if sizes is None or scores is None:
        raise InputError("prune wants `keep`, or `sizes` and the `scores` to choose by")
    return choose_keep(scores, sizes, config, family_of(config.model_type), by)


def rewrite_dataset(
    model: Model, dataset: Rows, cache_dir: str | Path, max_new_tokens: int = 256, batch_size: int = 32
) -> Dataset:
    """Return the dataset with answers that the model wrote, kept where they are sound and agree with the reference.

    Args:
        model: the dense model, as a path, a hub id or loaded.
        dataset: rows with prompt + completion or messages; `answer_type` and `answer` columns are honoured.
        cache_dir: generated answers are kept here, so that a second call goes on where a first one stopped.
        max_new_tokens: longest answer.
        batch_size: prompts generated together.
    """
    rows = _rows(dataset)
    if format_of(rows.column_names) == "text":
        raise InputError("plain text has no answers to rewrite; wanted: prompt + completion, or messages")
    mark = weights_fingerprint(model) if isinstance(model, PreTrainedModel) else fingerprint(_folder(model))
    teacher = LazyTeacher(lambda: _model(model), load_tokenizer(_folder(model)), mark)
    return rewrite_rows(rows, teacher, Sampling(max_new_tokens, batch_size), Path(cache_dir))


def cache_teacher(
    model: Model, dataset: Rows, output: str | Path, tier: str | Codec = "sampled", **options: object
) -> TeacherCache:
    """Let a model read a dataset once and keep what it says at each learned token, for `KDConfig(teacher_cache=...)`.

    Args:
        model: the teacher, as a path, a hub id or loaded.
        dataset: the training rows.
        output: the cache's folder; an interrupted pass goes on there.
        tier: `sampled`, `topk` or `hidden`, or one of these with settings: `Sampled(draws=...)`, `TopK(k=...)`.
        **options: `args`, the KDConfig (or its arguments as a dict) with which rows will be trained on, for what it
            says of max_length, packing and masks; `batch_size`, sequences read together; `vocab_size` of a student
            whose vocabulary is smaller than the teacher's.
    """
    args = options.pop("args", {})
    told = args if isinstance(args, dict) else {name: getattr(args, name) for name in PREPARATION}
    tokenizer = load_tokenizer(_folder(model))
    prepared = prepare_rows(_rows(dataset), told, tokenizer)
    mark = weights_fingerprint(model) if isinstance(model, PreTrainedModel) else fingerprint(_folder(model))
    codec = codec_of({"tier": tier}) if isinstance(tier, str) else tier
    work = CacheSpec(prepared, LazyTeacher(lambda: _model(model), tokenizer, mark), codec, **options)
    return write_cache(Path(output), work)


def evaluate(
    model: Model,
    tasks: list[str] | str = "recovery_probes",
    items: int | None = None,
    apply_chat_template: bool = False,
) -> dict[str, TaskScore]:
    """Return a model's score on each task, with one number per item.

    Args:
        model: a path, a hub id or a loaded model.
        tasks: tasks or groups of lm-eval, or ours.
        items: items of each task to draw; all where None.
        apply_chat_template: whether prompts go through the chat template.
    """
    harness = find_tasks([tasks] if isinstance(tasks, str) else tasks, [])
    loaded, tokenizer = _model(model), load_tokenizer(_folder(model))
    settings = EvaluationSettings(apply_chat_template=apply_chat_template, items=items)
    return {unit: evaluate_task(loaded, tokenizer, harness, unit, settings)[0] for unit in harness.units}


def _path_of(dataset: Rows, output: Path) -> str:
    if not isinstance(dataset, Dataset):
        return str(dataset)
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".rows.parquet"  # beside the stages; a folder with nothing else but hidden files counts as empty
    dataset.to_parquet(path)
    return str(path)


def _folder(model: Model) -> Path:
    name = model.config.name_or_path if isinstance(model, PreTrainedModel) else str(model)
    if not name:
        raise InputError("the model in memory has no config.name_or_path to find its tokenizer by")
    return locate(name)


def _model(model: Model) -> PreTrainedModel:
    return model.eval() if isinstance(model, PreTrainedModel) else load_model(_folder(model), "auto")


def _rows(dataset: Rows) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else read_dataset(str(dataset))
