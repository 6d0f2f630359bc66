"""Whether results were made under the same conditions; otherwise a difference is not the models'."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from trl_prune.errors import InputError
from trl_prune.evaluation.result_files import Conditions, ItemText, ModelResults


# Conditions under which a task is another task: such results are not compared.
SAME = ("version", "num_fewshot")
NAMES = {
    "version": "task version",
    "num_fewshot": "shots",
    "chat_template": "chat template",
    "fewshot_as_multiturn": "fewshot_as_multiturn",
    "system_instruction": "system instruction",
    "batch_size": "batch size",
    "generation": "generation settings",
    "lm_eval": "lm-eval version",
}
# How many tasks a warning names.
NAMED_TASKS = 3
# Characters of a value in a warning.
SHOWN_CHARACTERS = 40


def check_conditions(results: Sequence[ModelResults], allow_differences: bool = False) -> list[str]:
    """Return a sentence for each condition that differs between results.

    Args:
        results: of the models; the first is compared with each other.
        allow_differences: whether other shots, task versions or prompts are warned of instead of refused.

    Raises:
        InputError: a task has other shots, another version, or another prompt for the same document.
    """
    first, *others = results
    refused, warnings = [], []
    for other in others:
        different = _differences(first.conditions, other.conditions)
        sentences = {name: _sentence(name, tasks, first, other) for name, tasks in different.items()}
        refused += [sentence for name, sentence in sentences.items() if name in SAME]
        # Other shots make other prompts, which is said once.
        refused += [] if any(name in SAME for name in different) else _different_prompts(first, other)
        warnings += [sentence for name, sentence in sentences.items() if name not in SAME]
    if refused and not allow_differences:
        raise InputError(f"{refused[0]}, so that the results cannot be compared; evaluate both alike")
    return refused + warnings + _automatic_batches(results)


def _differences(
    first: Mapping[str, Conditions], other: Mapping[str, Conditions]
) -> dict[str, dict[str, tuple[object, object]]]:
    """Return by condition and task what differs; what a file does not say differs from nothing."""
    found: dict[str, dict[str, tuple[object, object]]] = {}
    for task in first:
        if task in other:
            pairs = zip(asdict(first[task]).items(), asdict(other[task]).values(), strict=True)
            for (name, one), two in pairs:
                if one != two and (None not in (one, two) or name in ("limit", "chat_template", "system_instruction")):
                    found.setdefault(name, {})[task] = (one, two)
    return found


def _sentence(name: str, tasks: Mapping[str, tuple[object, object]], first: ModelResults, other: ModelResults) -> str:
    one, two = next(iter(tasks.values()))
    of_tasks = "" if len(tasks) == len(set(first.conditions) & set(other.conditions)) else f" of {_named(list(tasks))}"
    values = f"{first.name}: {_shown(one)}, {other.name}: {_shown(two)}"
    return f"the {NAMES.get(name, name)}{of_tasks} differs between the results ({values})"


def _named(tasks: Sequence[str]) -> str:
    rest = len(tasks) - NAMED_TASKS
    return ", ".join(tasks[:NAMED_TASKS]) + (f" and {rest} more tasks" if rest > 0 else "")


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _different_prompts(first: ModelResults, other: ModelResults) -> list[str]:
    tasks = []
    for task in first.texts:
        pairs = [(text, other.texts.get(task, {}).get(key)) for key, text in first.texts[task].items()]
        count = sum(_differs(one, two) for one, two in pairs)
        if count:
            tasks.append(f"{task} ({count:,} of {len(pairs):,} items)")
    sentence = f"the same documents have other prompts in {other.name} than in {first.name}: {_named(tasks)}"
    return [sentence] if tasks else []


def _differs(one: ItemText, two: ItemText | None) -> bool:
    return two is not None and None not in (one.prompt_hash, two.prompt_hash) and one.prompt_hash != two.prompt_hash


def _automatic_batches(results: Sequence[ModelResults]) -> list[str]:
    names = [one.name for one in results if any("auto" in str(task.batch_size) for task in one.conditions.values())]
    sentence = "has batch size `auto`, with which a score may change from run to run by rounding"
    return [f"{', '.join(names)} {sentence}"] if names else []
