"""Read lm-eval's results with their samples: a results file, and `samples_TASK.jsonl` beside it.

The files are those of `lm_eval --output_path DIR --log_samples` (`results_DATE.json`, `samples_TASK_DATE.jsonl`), and
those that the `evaluate` stage writes in the same format (`results.json`, `samples_TASK.jsonl`).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trl_prune.errors import InputError
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.repetition import ends_in_loop
from trl_prune.evaluation.task_metrics import chance_score, choose_filter, choose_metric, item_score, task_kind


RESULTS = "results.json"
# Stands in errors for the file of results that are in none.
IN_MEMORY = Path("results in memory")
# The date in the names of one call's files, as in `results_2026-01-31T12-00-00.000000.json`.
DATE = re.compile(r"_\d{4}-\d\d-\d\dT[\d.-]+$")
# What lm-eval's results have, of whatever version.
KEYS = ("results", "configs", "versions")
# How much of each prompt's end is kept.
QUESTION_CHARACTERS = 400


@dataclass(frozen=True)
class ItemText:
    """What a model was asked and answered, to be shown.

    Attributes:
        question: the end of the prompt.
        target: the right answer, as the task has it.
        answer: the generated text, or the chosen one of given answers.
        prompt_hash: lm-eval's hash of the whole prompt; None where the file has none.
    """

    question: str
    target: str
    answer: str
    prompt_hash: str | None = None


@dataclass(frozen=True)
class Conditions:
    """How a task was evaluated; None is what the file does not say.

    Attributes:
        version: of the task.
        num_fewshot: shots that were given, whatever was asked for.
        chat_template: the hash of the chat template that was applied.
        system_instruction: its hash.
        fewshot_as_multiturn: whether shots were turns of a conversation.
        add_bos_token: whether a token that begins texts was added.
        generation: the generation settings.
        filters: the filters of answers.
        limit: the first items only, or items that were drawn.
        dtype: of the weights.
        batch_size: as it was asked for; `auto` may differ from run to run.
        max_length: tokens of the longest prompt.
        lm_eval: lm-eval's version.
    """

    version: object = None
    num_fewshot: int | None = None
    chat_template: str | None = None
    system_instruction: str | None = None
    fewshot_as_multiturn: bool | None = None
    add_bos_token: str | None = None
    generation: str | None = None
    filters: str | None = None
    limit: float | None = None
    dtype: str | None = None
    batch_size: str | None = None
    max_length: int | None = None
    lm_eval: str | None = None


@dataclass(frozen=True)
class ModelResults:
    """A model's results on some tasks.

    A requested group is replaced by its members, each a task or a subgroup that is scored as one task.

    Attributes:
        name: of the model, for tables.
        path: the results file.
        scores: by task or subgroup.
        conditions: by lm-eval task, the subgroups' tasks too.
        texts: by task or subgroup and by key of the item (`TaskScore.doc_hashes`).
    """

    name: str
    path: Path
    scores: dict[str, TaskScore]
    conditions: dict[str, Conditions]
    texts: dict[str, dict[str, ItemText]] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """A task's items: their scores, weights, keys, numbers of given answers, and texts."""

    name: str
    metric: str
    kind: str | None
    items: list[float]
    weights: list[float]
    choices: list[int]
    texts: dict[str, ItemText]
    loops: list[float]
    repeats: int


def read_results(path: str | Path, name: str | None = None, metrics: Mapping[str, str] | None = None) -> ModelResults:
    """Return a model's results from lm-eval's files.

    Args:
        path: a results file, or a folder that holds one.
        name: the model's name; by default that of the folder of a `results.json`, or the one that lm-eval recorded.
        metrics: the metric that counts, by task, where it is not the task's own.

    Raises:
        InputError: the file is not lm-eval's, has no samples, or a line or a score is broken.
    """
    file = results_file(Path(path).expanduser())
    results = _read_json(file)
    missing = [key for key in KEYS if not isinstance(results.get(key), dict)]
    if missing:
        raise InputError(f"{file} is not a results file of lm-eval: it has no {missing[0]!r}")
    tasks = _read_tasks(file, results, metrics or {})
    scores, texts = _scores(results, tasks)
    return ModelResults(name or _name(file, results), file, scores, _conditions(results, tasks), texts)


def task_scores(results: Mapping) -> dict[str, TaskScore]:
    """Return the scores by task or subgroup of results in memory, as `lm_eval.evaluate` returns them with samples.

    They are those that `read_results` gives of the same results in files.
    """
    return _scores(results, _read_tasks(IN_MEMORY, results, {}))[0]


def _read_tasks(file: Path, results: Mapping, metrics: Mapping[str, str]) -> dict[str, _Task]:
    return {task: _read_task(file, results, task, metrics.get(task)) for task in _leaves(results)}


def _scores(
    results: Mapping, tasks: Mapping[str, _Task]
) -> tuple[dict[str, TaskScore], dict[str, dict[str, ItemText]]]:
    scores, texts = {}, {}
    for member, subtasks in _members(results, tasks).items():
        scores[member], texts[member] = _score(member, [tasks[task] for task in subtasks], results)
    return scores, texts


def samples_file(task: str, date: str = "") -> str:
    """Return the name of the file with a task's samples; `date` is that of the results file's name."""
    return f"samples_{task}{date}.jsonl"


def results_file(path: Path) -> Path:
    """Return a results file: the path itself, or the only one in a folder or its subfolders.

    Raises:
        InputError: there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path} does not exist; name a results file of lm-eval or a folder that holds one")
    if (path / RESULTS).is_file():
        return path / RESULTS
    found = sorted(file for file in path.rglob("results_*.json") if DATE.search(file.stem))
    if not found:
        raise InputError(f"{path} holds no results of lm-eval (results_DATE.json); name the folder of --output_path")
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found)
        raise InputError(f"{path} holds {len(found)} results of lm-eval, of which one is wanted: {names}")
    return found[0]


def _read_json(file: Path) -> dict:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not a results file of lm-eval: it is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is not a results file of lm-eval: it holds a {type(values).__name__}")
    return values


def _groups(results: Mapping) -> dict[str, list[str]]:
    return {name: members for name, members in (results.get("group_subtasks") or {}).items() if members}


def _leaves(results: Mapping) -> list[str]:
    """Return the tasks of all groups and those of none, once each."""
    return list(dict.fromkeys(task for root in _roots(results) for task in _expand(results, root)))


def _roots(results: Mapping) -> list[str]:
    """Return the groups and tasks that are not a member of another group: those that were asked for."""
    groups = _groups(results)
    members = {member for subtasks in groups.values() for member in subtasks}
    return [name for name in dict.fromkeys([*groups, *results["configs"]]) if name not in members]


def _expand(results: Mapping, name: str) -> list[str]:
    members = _groups(results).get(name)
    return [name] if members is None else [task for member in members for task in _expand(results, member)]


def _members(results: Mapping, tasks: Mapping[str, _Task]) -> dict[str, list[str]]:
    """Return the tasks of each task or subgroup that is scored as one: those with one metric."""
    groups, members = _groups(results), {}
    for root in _roots(results):
        for member in groups.get(root, [root]):
            leaves = _expand(results, member)
            is_one = len({(tasks[leaf].metric, tasks[leaf].kind) for leaf in leaves}) == 1
            members |= {member: leaves} if is_one else {leaf: [leaf] for leaf in leaves}
    return members


def _samples(file: Path, results: Mapping, task: str) -> Iterator[tuple[str, dict]]:
    """Yield a task's samples, each with where it stands."""
    inline = (results.get("samples") or {}).get(task)
    if inline is not None:  # what `simple_evaluate` returns, written as it is
        yield from ((f"{file}, sample {number} of {task!r}", sample) for number, sample in enumerate(inline))
        return
    path = _samples_file(file, task)
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}, line {number}", _read_line(f"{path}, line {number}", line)


def _samples_file(file: Path, task: str) -> Path:
    date = DATE.search(file.stem)
    path = file.with_name(samples_file(task, date.group() if date else ""))
    if path.is_file():
        return path
    # The results file was renamed, or comes from another minute than its samples.
    start = f"samples_{task}"
    near = [
        other
        for other in sorted(file.parent.glob("samples_*.jsonl"))
        if other.stem.startswith(start) and DATE.fullmatch(other.stem[len(start) :])
    ]
    if date or len(near) != 1:
        raise InputError(
            f"{file} has no samples of task {task!r} beside it ({path.name}), and models are compared item by item: "
            "run lm_eval with --log_samples"
        )
    return near[0]


def _read_line(where: str, line: str) -> dict:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is broken: it is not JSON") from error
    if not isinstance(sample, dict) or "doc_id" not in sample:
        raise InputError(f"{where} is not a sample of lm-eval")
    return sample


def _read_task(file: Path, results: Mapping, task: str, metric: str | None) -> _Task:
    """Read a task's samples: of several filters of one answer the strictest."""
    config = results["configs"].get(task) or {}
    by_filter: dict[str, list[tuple[str, dict]]] = {}
    for where, sample in _samples(file, results, task):
        by_filter.setdefault(str(sample.get("filter", "none")), []).append((where, sample))
    if not by_filter:
        raise InputError(f"{file}: task {task!r} has no samples")
    samples = by_filter[choose_filter(by_filter)]
    metric = _metric(file, task, config, samples[0][1], metric)
    scored = [_item(where, sample, task, metric) for where, sample in samples]
    keys = unique_keys([_doc_hash(sample) for _, sample in samples])
    output_type = config.get("output_type")
    kind, generates = task_kind(output_type, metric), output_type == "generate_until"
    return _Task(
        name=task,
        metric=metric,
        kind=kind,
        items=[value for value, _ in scored],
        weights=[weight for _, weight in scored],
        choices=[len(sample["arguments"]) for _, sample in samples],
        texts={key: item_text(sample, kind, metric) for key, (_, sample) in zip(keys, samples, strict=True)},
        loops=[_loops(sample) for _, sample in samples] if generates else [],
        repeats=len(samples[0][1]["resps"][0]) if generates else 1,
    )


def _metric(file: Path, task: str, config: Mapping, sample: Mapping, wanted: str | None) -> str:
    available = list(sample.get("metrics") or [])
    if wanted is not None and wanted not in available:
        raise InputError(f"{file}: task {task!r} has no metric {wanted!r}; it has {', '.join(available)}")
    try:
        return wanted or choose_metric(task, config.get("metadata"), available)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _item(where: str, sample: Mapping, task: str, metric: str) -> tuple[float, float]:
    try:
        value, weight = item_score(metric, sample[metric])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: task {task!r} has no number for {metric!r} there") from error
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {metric!r} of task {task!r} is {value}; the model computes no finite numbers there"
        )
    return value, weight


def _doc_hash(sample: Mapping) -> str:
    """Return what names a sample's document: its hash, which versions of lm-eval before 0.4.3 do not write."""
    return str(sample.get("doc_hash") or json.dumps(sample.get("doc"), sort_keys=True, default=str))


def unique_keys(hashes: Sequence[str]) -> list[str]:
    """Return keys of items: the hash of the document, and for the second one with it `HASH#2`, and so on."""
    counts: Counter[str] = Counter()
    keys = []
    for one in hashes:
        counts[one] += 1
        keys.append(one if counts[one] == 1 else f"{one}#{counts[one]}")
    return keys


def item_text(sample: Mapping, kind: str | None, metric: str) -> ItemText:
    """Return what is shown of a sample of lm-eval, as it is in memory or in a file."""
    requests = _arguments(sample)
    prompt = str(requests[0][0]) if requests and requests[0] else ""
    target, answer = str(sample.get("target")), ""
    if kind == "generation":
        answer = str(sample["resps"][0][0])
    elif kind == "choice":
        choices = _choices(requests)
        answer = choices[_chosen(sample, choices, metric)]
        target = choices[int(target)] if target.isdecimal() and int(target) < len(choices) else target
    return ItemText(prompt[-QUESTION_CHARACTERS:], target, answer, sample.get("prompt_hash"))


def _arguments(sample: Mapping) -> list[list]:
    """Return the arguments of each request: a list in memory, `{gen_args_0: {arg_0: ...}}` in a file."""
    arguments = sample["arguments"]
    requests = arguments.values() if isinstance(arguments, dict) else arguments
    return [list(one.values()) if isinstance(one, dict) else list(one) for one in requests]


def _choices(requests: Sequence[Sequence]) -> list[str]:
    """Return the given answers; where the prompts differ instead, as in Winogrande, the ends of the prompts."""
    answers = [str(request[1]).strip() for request in requests]
    same = len(set(answers)) == 1
    return [str(request[0]).strip()[-QUESTION_CHARACTERS:] for request in requests] if same else answers


def _chosen(sample: Mapping, choices: Sequence[str], metric: str) -> int:
    """Return which of the given answers the model finds most likely."""
    likelihoods = [float(responses[0][0]) for responses in sample["resps"]]
    lengths = [max(len(choice), 1) if metric == "acc_norm" else 1 for choice in choices]
    return int(np.argmax([likelihood / length for likelihood, length in zip(likelihoods, lengths, strict=True)]))


def _loops(sample: Mapping) -> float:
    """Return the share of an item's answers that end in a loop."""
    return float(np.mean([ends_in_loop(str(answer)) for answer in sample["resps"][0]]))


def _score(name: str, tasks: Sequence[_Task], results: Mapping) -> tuple[TaskScore, dict[str, ItemText]]:
    """Return the score of a task, or of a subgroup with the items of all its tasks, and the items' texts."""
    configs = [results["configs"].get(task.name) or {} for task in tasks]
    metric, metadata = tasks[0].metric, configs[0].get("metadata") or {}
    weights = [weight for task in tasks for weight in task.weights]
    texts = {
        key if len(tasks) == 1 else f"{task.name}/{key}": text for task in tasks for key, text in task.texts.items()
    }
    score = TaskScore(
        task=name,
        metric=metric,
        items=[item for task in tasks for item in task.items],
        chance=_chance(tasks, configs),
        capability=metadata.get("capability"),
        kind=tasks[0].kind,
        higher_is_better=_higher_is_better(results, tasks[0].name, metric),
        doc_hashes=list(texts),
        weights=None if set(weights) == {1.0} else weights,
        loops=[loop for task in tasks for loop in task.loops] or None,
        repeats=tasks[0].repeats,
    )
    return score, texts


def _chance(tasks: Sequence[_Task], configs: Sequence[Mapping]) -> float | None:
    chances = [
        chance_score(config.get("metadata"), config.get("output_type"), task.choices)
        for task, config in zip(tasks, configs, strict=True)
    ]
    if any(chance is None for chance in chances):
        return None
    return float(np.average(chances, weights=[len(task.items) for task in tasks]))


def _higher_is_better(results: Mapping, task: str, metric: str) -> bool:
    stated = ((results.get("higher_is_better") or {}).get(task) or {}).get(metric)
    return not metric.endswith(("perplexity", "bits_per_byte")) if stated is None else bool(stated)


def _name(file: Path, results: Mapping) -> str:
    if file.name == RESULTS:
        return file.resolve().parent.name
    return Path(str(results.get("model_name") or file.stem)).name


def _conditions(results: Mapping, tasks: Mapping[str, _Task]) -> dict[str, Conditions]:
    config = results.get("config") or {}
    template = results.get("chat_template_sha")
    general = {
        "chat_template": template,
        "system_instruction": results.get("system_instruction_sha"),
        # Without a chat template there are no turns, whatever the setting.
        "fewshot_as_multiturn": results.get("fewshot_as_multiturn") if template else None,
        "add_bos_token": _add_bos_token(config.get("model_args")),
        "limit": config.get("limit"),
        "dtype": _text(config.get("model_dtype") or config.get("dtype")),
        "batch_size": _text(config.get("batch_size")),
        "max_length": results.get("max_length"),
        "lm_eval": _text(results.get("lm_eval_version")),
    }
    return {task: Conditions(**general, **_task_conditions(results, task)) for task in tasks}


def _task_conditions(results: Mapping, task: str) -> dict:
    config = results["configs"].get(task) or {}
    return {
        "version": results["versions"].get(task),
        "num_fewshot": (results.get("n-shot") or {}).get(task, config.get("num_fewshot")),
        "generation": _text(config.get("generation_kwargs")),
        "filters": _text(config.get("filter_list")),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")


def _add_bos_token(model_args: object) -> str | None:
    """Return the setting of `add_bos_token` among lm-eval's model arguments, which are a text or a mapping."""
    if isinstance(model_args, dict):
        return _text(model_args.get("add_bos_token"))
    found = re.search(r"add_bos_token=([^,\s]+)", str(model_args or ""))
    return found[1] if found else None
