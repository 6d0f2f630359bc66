"""Which of a task's metrics and filters counts, what it says of one item, and the score of guessing."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from trl_prune.errors import InputError


# The metrics of a task whose metadata names none, in order of preference.
METRICS = ("acc_norm", "acc", "exact_match", "word_perplexity")
# Of a task with several filters of one answer, the strictest counts (as on the OpenLLM leaderboard v1).
FILTERS = ("strict-match", "none")
# What is compared: the choice among given answers, generated answers, the one right continuation of a text (LAMBADA's
# accuracy), or the likelihood of texts.
KINDS = {
    "multiple_choice": "choice",
    "generate_until": "generation",
    "loglikelihood": "continuation",
    "loglikelihood_rolling": "likelihood",
}
# Metrics that lm-eval aggregates as exp(mean negative log-likelihood), and those that it leaves in logarithms.
PERPLEXITIES = ("word_perplexity", "byte_perplexity", "perplexity")
NATS_PER_UNIT = {"bits_per_byte": math.log(2)} | dict.fromkeys(PERPLEXITIES, 1.0)


def choose_metric(task: str, metadata: Mapping | None, available: Sequence[str]) -> str:
    """Return the metric that a task is scored by: its metadata's, the first of `METRICS` that it has, or its only one.

    Args:
        task: the task's name, for the error.
        metadata: the `metadata` of the task's config.
        available: the metrics that the task has for each item.

    Raises:
        InputError: it has none that gives each item a score.
    """
    known = [name for name in METRICS if name in available] or (list(available) if len(available) == 1 else [])
    metric = (metadata or {}).get("metric") or next(iter(known), None)
    if metric not in available:
        raise InputError(
            f"task {task!r} has the metrics {', '.join(available)}; wanted: one of {', '.join(METRICS)}, "
            "or one named as metadata.metric"
        )
    return metric


def choose_filter(names: Collection[str]) -> str:
    """Return which filter of the answers counts: the strictest that is known, or the first by name."""
    return next((name for name in FILTERS if name in names), None) or min(names)


def task_kind(output_type: str | None, metric: str) -> str | None:
    """Return `choice`, `generation`, `continuation` or `likelihood`; None where it is unknown.

    Args:
        output_type: lm-eval's, by which requests are made.
        metric: the metric that counts; perplexities and the like are likelihoods, however they are asked for.
    """
    return "likelihood" if metric in NATS_PER_UNIT else KINDS.get(output_type or "")


def chance_score(metadata: Mapping | None, output_type: str | None, choices: Sequence[int]) -> float | None:
    """Return the score of guessing: the metadata's, 0 for generated answers, or 1 / choices; None where it is unknown.

    Args:
        metadata: the `metadata` of the task's config.
        output_type: the task's.
        choices: the number of given answers, for each item.
    """
    stated = (metadata or {}).get("chance")
    if stated is not None:
        return float(stated)
    if output_type == "generate_until":
        return 0.0
    if output_type == "multiple_choice" and choices:
        return float(np.mean([1 / count for count in choices]))
    return None


def item_score(metric: str, value: object) -> tuple[float, float]:
    """Return what a metric says of one item, and how much the item weighs in the task's mean.

    Perplexities are means of logarithms: of an item whose text has the log-likelihood `l` in `n` words or bytes,
    lm-eval keeps `(l, n)`, which becomes the score `-l / n` (in nats; `bits_per_byte` in bits) with the weight `n`.

    Raises:
        ValueError: the metric has no number for an item, such as F1 over all items.
    """
    if metric in NATS_PER_UNIT:
        likelihood, units = value if isinstance(value, list | tuple) else (value, 1.0)
        return -float(likelihood) / float(units) / NATS_PER_UNIT[metric], float(units)
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value), 1.0
    raise ValueError(f"metric {metric!r} has no number for each item")
