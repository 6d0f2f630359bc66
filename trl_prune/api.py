"""The verbs as functions with plain arguments, for notebooks and scripts."""

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from trl_prune.checkpoints import (
    dense_root,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    weights_fingerprint,
)
from trl_prune.config import load_recipe, parse_recipe
from trl_prune.data.formatting import calibration_batches, format_of, read_dataset, sample
from trl_prune.data.generation import Sampling
from trl_prune.data.self_distillation import Teacher, rewrite_rows
from trl_prune.data.teacher_cache import TeacherCache
from trl_prune.data.teacher_codecs import Codec, codec_of
from trl_prune.data.teacher_writing import Work, write_cache
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import Manner, evaluate_unit, find_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.families import family_of
from trl_prune.pruning.importance import LayerScores, score_layers
from trl_prune.pruning.selection import SELECTIONS
from trl_prune.pruning.surgery import LAYERS, prune_checkpoint
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


def score(model: Model, dataset: Rows, samples: int = 256, tokens: str = "all", seed: int = 0) -> LayerScores:
    """Return how much each decoder block matters, from one forward pass over texts of the dataset.

    Args:
        model: a path, a hub id or a loaded model.
        dataset: a path, a hub id or a `datasets.Dataset` in one of TRL's formats.
        samples: texts to draw.
        tokens: `all`, or `last` (each text's last token).
        seed: for the draw.
    """
    loaded, tokenizer = _model(model), load_tokenizer(_folder(model))
    family_of(loaded.config.model_type)
    rows = sample(_rows(dataset), samples, seed)
    return score_layers(loaded, calibration_batches(rows, tokenizer, 8, 512), tokens)


def prune(
    model: str | Path,
    output: str | Path,
    layers: int | list[int],
    scores: LayerScores | None = None,
    by: str = "angular_distance",
) -> Path:
    """Write a checkpoint with fewer decoder blocks and return its folder.

    Args:
        model: a path or a hub id.
        output: the folder to write; it appears whole or not at all.
        layers: which blocks stay, or how many, then chosen by `scores`.
        scores: what `score` returned.
        by: `angular_distance` (a contiguous run goes) or `block_influence`.

    Raises:
        InputError: a model type without a row, or a cut that does not fit the model.
    """
    target = Path(output)
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"output {str(target)!r} is there already and is not overwritten; name a new folder")
    folder = locate(str(model))
    total = load_config(folder).num_hidden_layers
    keep = layers if isinstance(layers, list) else _chosen(total, layers, scores, by)
    prune_checkpoint(folder, target, {LAYERS: keep}, dense_root(folder, str(model)))
    return target


def _chosen(total: int, layers: int, scores: LayerScores | None, by: str) -> list[int]:
    if not 0 < layers <= total:
        raise InputError(f"layers is {layers}; allowed: 1..{total}, or a list of blocks")
    if by not in SELECTIONS:
        raise InputError(f"by is {by!r}; allowed: {', '.join(SELECTIONS)}")
    if layers == total:
        return list(range(total))
    if scores is None:
        raise InputError("prune wants `scores` to choose by, or `layers` as a list of the blocks that stay")
    removed = SELECTIONS[by](scores, total - layers)
    return [index for index in range(total) if index not in removed]


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
    teacher = Teacher(lambda: _model(model), load_tokenizer(_folder(model)), mark)
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
    work = Work(prepared, Teacher(lambda: _model(model), tokenizer, mark), codec, **options)
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
    manner = Manner(apply_chat_template=apply_chat_template, items=items)
    return {unit: evaluate_unit(loaded, tokenizer, harness, unit, manner)[0] for unit in harness.units}


def _folder(model: Model) -> Path:
    name = model.config.name_or_path if isinstance(model, PreTrainedModel) else str(model)
    if not name:
        raise InputError("the model in memory has no config.name_or_path to find its tokenizer by")
    return locate(name)


def _model(model: Model) -> PreTrainedModel:
    return model.eval() if isinstance(model, PreTrainedModel) else load_model(_folder(model), "auto")


def _rows(dataset: Rows) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else read_dataset(str(dataset))
