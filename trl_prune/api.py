"""The verbs as functions with plain arguments, for notebooks and scripts."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel

from trl_prune.checkpoints import (
    dense_root,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    prove_source,
    weights_fingerprint,
)
from trl_prune.data.batches import calibration_batches, sample
from trl_prune.data.formats import format_of
from trl_prune.data.generation.decoding import end_ids
from trl_prune.data.generation.engines import build_engine, check_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.reading import normal_dataset, read_dataset
from trl_prune.data.rewriting.provenance import RECORDS, write_records
from trl_prune.data.rewriting.rewrite import RewrittenDataset, rewrite_rows
from trl_prune.data.selection.selection_run import SelectionModels, SelectionRun
from trl_prune.data.selection.texts import check_instruction_column
from trl_prune.data.teacher import LazyTeacher, context_length, within_context
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Codec, codec_from_settings
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.evaluation.comparison import ComparedModels
from trl_prune.evaluation.harness import evaluate_tasks, load_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.speculative.measurement import continue_prompts, measure_speculation
from trl_prune.evaluation.speculative.summary import acceptance_summary, speed_summary
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.choosing.units import MEASURED_BEST, Ranking, choose_keep
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.importance.scores import score as score_units
from trl_prune.pruning.keep import row_for
from trl_prune.pruning.repairs import applicable_repairs, build_repairs
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.recipe import (
    DatasetSection,
    load_recipe,
    parse_evaluate,
    parse_recipe,
    parse_rewrite,
    parse_select,
    parse_speculate,
)
from trl_prune.reporting.across_runs import report_runs
from trl_prune.reporting.comparison_page import write_comparison
from trl_prune.runs.compared_results import compared_results
from trl_prune.runs.evaluation import section_settings
from trl_prune.runs.merging import MergeCall
from trl_prune.runs.rewriting import rewrite_settings
from trl_prune.runs.selection import build_embedder, selection_rows, selection_settings
from trl_prune.runs.speculation import check_draft, draw_prompts, longest_prompt, no_prompts, speculative_settings
from trl_prune.trainers.preparation import PREPARATION_ARGS, prepare_rows
from trl_prune.trainers.teachers.tokenizer_check import check_encodings


Model = str | Path | PreTrainedModel
Rows = str | Path | Dataset
# Keys of a recipe's `evaluate` section that need its other models or its report.
OF_RECIPE = {"fidelity", "held_out", "models", "questions", "speed_seconds"}


def run(recipe: str | Path | dict, **overrides: object) -> Path:
    """Run a recipe file, or a recipe given as nested mappings, and return its run folder.

    Args:
        recipe: a YAML file or the recipe itself.
        overrides: sections to replace, by name.

    Raises:
        InputError: one sentence that names the wrong key or value.
    """
    if isinstance(recipe, dict):
        parsed = parse_recipe(recipe | overrides, "the recipe")
    else:
        loaded = load_recipe(Path(recipe).expanduser(), [])
        parsed = parse_recipe(loaded.model_dump(mode="json", exclude_unset=True) | overrides, str(recipe))
    return run_recipe(parsed).folder.path


def score(model: Model, dataset: Rows, samples: int = 256, tokens: str = "all", seed: int = 0) -> Scores:
    """Return the importance of every block, head, neuron, channel and expert, from one forward pass over texts.

    Args:
        model: a path, a hub id or a loaded model.
        dataset: a path, a hub id or a `datasets.Dataset` in one of TRL's formats.
        samples: number of texts to draw.
        tokens: positions that count for the distances between blocks: `all`, or `last` (each text's last token).
        seed: seed of the draw.
    """
    loaded, tokenizer = _model(model), load_tokenizer(_folder(model))
    rows = sample(_rows(dataset), samples, seed)
    batches = calibration_batches(rows, tokenizer, 8, within_context(512, loaded.config))
    return score_units(loaded, batches, tokens)


def search(
    model: str | Path, dataset: Rows, output: str | Path, budget: dict[str, float], **settings: object
) -> tuple[dict[str, list], list[dict]]:
    """Return the plan of the size within a budget that recovers best, and every candidate's scores.

    An interrupted search with the same arguments is resumed.

    Args:
        model: a path or a hub id.
        dataset: a path, a hub id or a `datasets.Dataset` in one of TRL's formats: calibration, training and held-out
            texts.
        output: the run folder.
        budget: one of `parameters`, `share`, `bytes` and `memory` (with `batch_size` and `max_model_len`), and
            `tolerance`.
        settings: the other keys of a recipe's `search` section, such as `grid`, `rungs`, `train`; and `seed`, `dtype`
            and `score`'s settings as `calibration`.

    Returns:
        `keep`, the winner's units by axis, counted in the model; and one entry per candidate, the best first:
        `{name, sizes, parameters, cost, scores}`, with the score before any training and after each rung.

    Raises:
        InputError: nothing fits the budget, or another mistake in the input.
    """
    folder = Path(output).expanduser()
    values = {"model": str(model), "dataset": {"path": _path_of(dataset, folder)}, "output": str(folder)}
    values |= {name: settings.pop(name) for name in ("seed", "dtype") if name in settings}
    values |= {"score": settings.pop("calibration", {}), "prune": {"by": "search"}}
    recipe = parse_recipe(values | {"search": {"budget": budget, **settings}}, "search's arguments")
    folder = run_recipe(recipe, ["search"]).folder
    keep, table = (json.loads(folder.output("search", name).read_text()) for name in ("keep", "candidates"))
    return keep, table["candidates"]


def prune(  # noqa: PLR0913
    model: str | Path,
    output: str | Path,
    keep: Mapping[str, list] | None = None,
    sizes: Mapping[str, int] | None = None,
    scores: Scores | None = None,
    by: Ranking = MEASURED_BEST,
    text_only: bool = False,
) -> Path:
    """Write a smaller checkpoint and return its folder.

    After a cut of hidden channels the norms are rescaled, which needs no texts. Repairs that are fitted on texts, and
    the model card, are left to a recipe's `prune`.

    Args:
        model: a path or a hub id.
        output: the folder to write, atomically.
        keep: the units of each axis to keep, as in `{"num_hidden_layers": [0, 1, 5]}`; or else `sizes`:
        sizes: the number of units of each axis to keep, as in `{"intermediate_size": 1024}`, chosen by `scores`.
        scores: the result of `score`.
        by: how units are ranked; by default as recipes rank them.
        text_only: of a multimodal checkpoint, write the text tower alone, as an ordinary causal LM.

    Raises:
        InputError: an unsupported model type, or a cut that does not fit the model.
    """
    target = Path(output).expanduser()
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise InputError(f"output {str(target)!r} is there already and is not overwritten; name a new folder")
    folder = locate(str(model))
    plan = keep if keep is not None else _choose_keep(load_config(folder), sizes, scores, by)
    cut = Cut.of(load_config(folder), plan)
    names = {"norm_rescale": {}} if "norm_rescale" in applicable_repairs(folder, cut) else {}
    repairs = build_repairs(names, folder, cut, Calibration(lambda: load_model(folder, "auto"), [], target.parent))
    prune_checkpoint(folder, target, plan, dense_root(folder, str(model)), repairs, text_only=text_only)
    return target


def _choose_keep(
    config: PreTrainedConfig, sizes: Mapping[str, int] | None, scores: Scores | None, by: Ranking
) -> Mapping[str, list]:
    if sizes is None or scores is None:
        raise InputError("prune requires `keep`, or `sizes` and the `scores` to choose by")
    return choose_keep(scores, sizes, config, row_for(config), by)


def rewrite_dataset(
    model: Model, dataset: Rows, cache_dir: str | Path, seed: int = 0, **settings: object
) -> RewrittenDataset:
    """Return the dataset with the model's own answers where they are accepted, and the references elsewhere.

    Args:
        model: the dense model, as a path, a hub id or loaded.
        dataset: rows with prompt + completion or messages, or text with `response_template`; the columns
            `answer_type`, `answer`, `tools`, `chat_template_kwargs` and `tests` are used.
        cache_dir: folder of the generated answers, from which an interrupted call is resumed, and of
            `provenance.jsonl`, what became of each answer.
        seed: seed of answers that are sampled.
        **settings: the keys of a recipe's `rewrite` section, such as `max_new_tokens`, `answer_type`, `engine`; and
            `chat_template_kwargs`.

    Returns:
        `rows`, with the columns and in the format of the dataset, and `records`, one for each answer.

    Raises:
        InputError: one sentence that names the wrong row, value or argument.
    """
    rows, teacher, name = _rows(dataset), _teacher(model), None if isinstance(dataset, Dataset) else str(dataset)
    variables = settings.pop("chat_template_kwargs", {})
    section = parse_rewrite(settings, "rewrite_dataset's arguments")
    if format_of(rows.column_names) == "text" and section.response_template is None:
        raise InputError("plain text has no answers to rewrite; give `response_template`, or other rows")
    check_engine(section.engine, section.engine_kwargs, "engine_kwargs")
    engine = build_engine(section.engine, teacher, section.engine_kwargs)
    generator = AnswerGenerator(engine, teacher.tokenizer, Path(cache_dir).expanduser())
    result = rewrite_rows(rows, generator, rewrite_settings(section, seed, teacher.max_model_len, name, variables))
    write_records(result.records, Path(cache_dir).expanduser() / RECORDS)
    return result


def select_recovery_data(
    dense: Model,
    pruned: Model,
    dataset: Rows,
    budget: int | float,
    **settings: object,
) -> Dataset:
    """Return the rows of a dataset that repair best what pruning broke (PASER, 2502.12594).

    Args:
        dense: the dense model, as a path, a hub id or loaded.
        pruned: the pruned model, whatever pruned it, with the dense one's vocabulary.
        dataset: rows in one of TRL's formats.
        budget: a share of the rows, as in 0.1, or their number.
        **settings: `cache_dir`, the folder of embeddings and scores, from which an interrupted call is resumed and
            which later calls reuse (a temporary one if left out); `seed`; `chat_template_kwargs`; and the keys of a
            recipe's `select` section, such as `method`, `embedder` and `clusters`.

    Returns:
        The chosen rows, in the dataset's order and format.

    Raises:
        InputError: one sentence that names the wrong value or argument.
    """
    cache_dir, seed = settings.pop("cache_dir", None), settings.pop("seed", 0)
    variables = settings.pop("chat_template_kwargs", {})
    section = parse_select({"budget": budget, **settings}, "select_recovery_data's arguments")
    if section.selections:
        raise InputError("`selections` are for a recipe, whose arms use them; call select_recovery_data once for each")
    rows, models = _rows(dataset), [_teacher(model) for model in (dense, pruned)]
    check_instruction_column(rows, section.instruction, "the dataset")
    check_encodings({"dense model": models[0].tokenizer, "pruned model": models[1].tokenizer})
    target = None if section.target is None else _section_rows(section.target, seed)
    folder = Path(cache_dir or mkdtemp(prefix="trl-prune-select-")).expanduser()
    job = SelectionRun(
        selection_rows(rows, section, models, variables, target),
        SelectionModels(*models, build_embedder(section, models[0])),
        selection_settings(section, {section.method: section.selection(section.method)}, seed),
        folder,
    )
    chosen = job.run().own.rows.tolist()
    if cache_dir is None:  # kept after an error, so that it can be given as `cache_dir`
        shutil.rmtree(folder)
    return rows.select(chosen)


def _section_rows(section: DatasetSection, seed: int) -> Dataset:
    rows = read_dataset(section.path, section.name, section.split, section.revision)
    return rows if section.rows is None else sample(rows, section.rows, seed)


def cache_teacher(
    model: Model, dataset: Rows, output: str | Path, tier: str | Codec = "sampled", **options: object
) -> TeacherCache:
    """Store a model's predictions for every learned token of a dataset, for `KDConfig(teacher_cache=...)`.

    Args:
        model: the teacher, as a path, a hub id or loaded.
        dataset: the training rows.
        output: the cache's folder; an interrupted call is resumed from it.
        tier: `sampled`, `topk` or `hidden`, or one of these with settings: `Sampled(draws=...)`, `TopK(k=...)`.
        **options: `args`, the KDConfig of the training (or its arguments as a dict), for max_length, packing and loss
            masks; `batch_size`, sequences per batch; `vocab_size` of a student whose vocabulary is smaller than the
            teacher's.
    """
    args = options.pop("args", {})
    values = args if isinstance(args, dict) else {name: getattr(args, name) for name in PREPARATION_ARGS}
    teacher = _teacher(model)
    prepared = prepare_rows(_rows(dataset), values, teacher.tokenizer)
    codec = codec_from_settings({"tier": tier}) if isinstance(tier, str) else tier
    return write_cache(Path(output).expanduser(), CacheSpec(prepared, teacher, codec, **options))


def merge(
    recipe: str | Path,
    models: Sequence[str | Path],
    output: str | Path,
    base: str | Path | None = None,
    dev: Rows | None = None,
    **parameters: object,
) -> Path:
    """Merge models of one shape into one with mergekit, prove the result whole and return its folder.

    Args:
        recipe: a shipped merge recipe, such as `slerp`, `linear` or `ties`, or the path of a YAML with placeholders.
        models: paths or hub ids of models, or paths of LoRA adapters, which are merged into full weights first.
        output: the folder to write, atomically, with `merge.json`: what was merged, proven and, in a search, measured.
        base: for recipes with a base, the pruned model that all were trained from.
        dev: texts that no model was trained on, as a path, a hub id or a `datasets.Dataset`; on them t or the weights
            with the least cross-entropy are searched.
        **parameters: the merge recipe's parameters, such as `t=0.3`, `weight=[1, 2]`, `density=0.5`; `lambda` as
            `**{"lambda": 0.5}`; and `seed`.

    Raises:
        InputError: models that do not fit together, a wrong parameter, or another mistake in the input.
    """
    MergeCall.of(str(recipe), models, base, dev, **parameters).run(Path(output).expanduser())
    return Path(output).expanduser()


def evaluate(model: Model, tasks: Sequence[str] | str = "recovery_probes", **settings: object) -> dict[str, TaskScore]:
    """Return a model's score on each task, with the scores of all items.

    Args:
        model: a path, a hub id or a loaded model.
        tasks: tasks or groups of lm-eval, or those shipped here.
        **settings: `seed`, `chat_template_kwargs`, and those keys of a recipe's `evaluate` section that say how a
            model is asked: `limit` (items of each task, drawn at random), `apply_chat_template` (by default where
            there is one), `batch_size`, `include_path`, `confirm_run_unsafe_code`.

    Raises:
        InputError: one sentence that names the wrong value or task.
    """
    seed, variables = settings.pop("seed", 0), settings.pop("chat_template_kwargs", {})
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    section = parse_evaluate(settings | {"tasks": names}, "evaluate's arguments")
    of_recipe = sorted(settings.keys() & OF_RECIPE)
    if of_recipe:
        raise InputError(f"`{of_recipe[0]}` is for a recipe; evaluate asks one model the tasks alone")
    loaded_tasks = load_tasks(names, section.include_path)
    loaded, tokenizer = _model(model), load_tokenizer(_folder(model))
    return evaluate_tasks(loaded, tokenizer, loaded_tasks, section_settings(section, tokenizer, seed, variables))


def measure_speculative(target: Model, draft: Model, dataset: Rows | list[str], **settings: object) -> dict:
    """Return how good a model is as another one's draft in speculative decoding (2211.17192).

    Args:
        target: the model that decodes, as a path, a hub id or loaded.
        draft: the smaller model, with the same tokenizer.
        dataset: prompts, as rows in one of TRL's formats, or as texts to which an answer is wanted.
        **settings: `seed`, `chat_template_kwargs`, and the keys of a recipe's `speculate` section but `drafts`, such
            as `draft_lengths`, `prompts` (their number), `max_new_tokens`, `sampled`, `temperature`.

    Returns:
        `acceptance`, which depends on the models alone: expected acceptance by kind of text (`greedy` and `sampled` by
        the target, `reference` for given answers), and calls counted while decoding; and `speed`, which depends on the
        machine: `costs`, `predicted` and `measured` speed-ups by draft length, `warnings`.

    Raises:
        InputError: one sentence that names the wrong value or model.
    """
    seed, variables = settings.pop("seed", 0), settings.pop("chat_template_kwargs", {})
    section = parse_speculate(settings, "measure_speculative's arguments")
    if section.drafts is not None:
        raise InputError("`drafts` are for a recipe; call measure_speculative once for each")
    tokenizer, folder = load_tokenizer(_folder(target)), _folder(draft)
    check_draft(folder.name, folder, tokenizer)
    texts = [{"prompt": text, "completion": ""} for text in dataset] if isinstance(dataset, list) else None
    rows = _rows(dataset) if texts is None else Dataset.from_list(texts)
    longest = longest_prompt([load_config(_folder(model)) for model in (target, draft)], section)
    drawn = draw_prompts(rows, tokenizer, section.prompts, seed, longest, variables)
    if not drawn:
        raise InputError(no_prompts("measure_speculative's argument `dataset`", longest))
    models = [_model(model) for model in (target, draft)]
    judging = speculative_settings(section, seed, end_ids(models[0].generation_config, tokenizer))
    found = measure_speculation(*models, continue_prompts(models[0], drawn, judging), judging)
    return {"acceptance": acceptance_summary(found), "speed": speed_summary(found)}


def report(runs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write one page about several finished runs on one dense model, and return its path.

    Args:
        runs: the run folders, or recipe files, whose `output` is read.
        output: the folder of the page; by default `report` beside the first run.

    Raises:
        InputError: there is no run, a folder holds no evaluated run, or the runs cannot be compared.
    """
    return report_runs(runs, output).page


def compare(
    results: Sequence[str | Path],
    dense: str | Path | None = None,
    pruned: str | Path | None = None,
    output: str | Path | None = None,
    **options: object,
) -> ComparedModels:
    """Compare models' results with the dense one's, item by item.

    Args:
        results: results files of `lm_eval --log_samples` or folders of them, `NAME=PATH` to name a model; run folders
            or recipes, whose evaluated models are all compared.
        dense: the path or name of the dense model; by default the first.
        pruned: the path or name of the unrecovered model, for the share of the gap that is closed; by default a run's.
        output: a folder for `comparison.json`, `.md` and `.html`; by default nothing is written.
        **options: `metrics`, the metric that counts, by task, where it is not the task's own; `allow_differences`,
            whether other shots, task versions or prompts are warned of instead of refused.

    Returns:
        `comparisons`, by model; `scores`, `marks` (the tasks that say nothing), `warnings` and `flips(name)`.

    Raises:
        InputError: something cannot be read or compared.
    """
    compared = compared_results(results, dense, pruned, **options)
    if output is not None:
        write_comparison(compared, Path(output).expanduser())
    return compared


def _path_of(dataset: Rows, output: Path) -> str:
    if not isinstance(dataset, Dataset):
        return str(dataset)
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".rows.parquet"  # hidden, because a run folder with other visible files is refused
    dataset.to_parquet(path)
    return str(path)


def _folder(model: Model) -> Path:
    name = model.config.name_or_path if isinstance(model, PreTrainedModel) else str(model)
    if not name:
        raise InputError("the model in memory has no config.name_or_path to find its tokenizer by")
    return locate(name)


def _model(model: Model) -> PreTrainedModel:
    if isinstance(model, PreTrainedModel):
        return model.eval()
    folder = _folder(model)
    prove_source(folder)
    return load_model(folder, "auto")


def _teacher(model: Model) -> LazyTeacher:
    folder = _folder(model)
    name = weights_fingerprint(model) if isinstance(model, PreTrainedModel) else fingerprint(folder)
    length = context_length(load_config(folder))
    # The folder of a model in memory may have other weights.
    checkpoint = None if isinstance(model, PreTrainedModel) else folder
    return LazyTeacher(lambda: _model(model), load_tokenizer(folder), name, length, checkpoint)


def _rows(dataset: Rows) -> Dataset:
    return normal_dataset(dataset) if isinstance(dataset, Dataset) else read_dataset(str(dataset))
