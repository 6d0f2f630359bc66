"""Oracles: lm-eval's own aggregation, and the rules as the leaderboard states them."""

import numpy as np
import pytest

from trl_prune.errors import InputError
from trl_prune.evaluation.task_metrics import (
    PERPLEXITIES,
    chance_score,
    choose_filter,
    choose_metric,
    item_score,
    task_kind,
)


@pytest.mark.parametrize(
    ("metadata", "available", "metric"),
    [
        ({}, ["acc", "acc_norm"], "acc_norm"),
        ({"metric": "acc"}, ["acc", "acc_norm"], "acc"),
        (None, ["exact_match", "f1"], "exact_match"),
        (None, ["bits_per_byte", "word_perplexity"], "word_perplexity"),
        (None, ["pass@1"], "pass@1"),
    ],
)
def test_the_metric_is_the_metadatas_or_the_first_known_or_the_only_one(metadata, available, metric):
    assert choose_metric("t", metadata, available) == metric


@pytest.mark.parametrize("metadata", [None, {"metric": "acc"}])
def test_a_task_without_such_a_metric_is_refused(metadata):
    with pytest.raises(InputError, match="task 'glue' has the metrics f1, mcc; wanted: one of acc_norm, acc, "):
        choose_metric("glue", metadata, ["f1", "mcc"])


def test_the_strictest_filter_counts():
    assert choose_filter({"flexible-extract", "strict-match"}) == "strict-match"
    assert choose_filter(["none"]) == "none"
    assert choose_filter({"second", "first"}) == "first"


@pytest.mark.parametrize(
    ("output_type", "metric", "kind"),
    [
        ("multiple_choice", "acc", "choice"),
        ("generate_until", "exact_match", "generation"),
        ("loglikelihood", "acc", "continuation"),
        ("loglikelihood", "perplexity", "likelihood"),
        ("loglikelihood_rolling", "bits_per_byte", "likelihood"),
        (None, "word_perplexity", "likelihood"),
        (None, "acc", None),
    ],
)
def test_kinds_are_those_of_the_metric_and_of_lm_evals_output_types(output_type, metric, kind):
    assert task_kind(output_type, metric) == kind


def test_chance_is_stated_or_known_from_the_choices():
    assert chance_score({"chance": 0.125}, "multiple_choice", [4]) == 0.125
    assert chance_score(None, "multiple_choice", [2, 4]) == pytest.approx(0.375)
    assert chance_score({}, "generate_until", []) == 0.0
    assert chance_score({}, "loglikelihood", [1]) is None


def test_weighted_items_have_lm_evals_aggregate():
    from lm_eval.api.metrics import bits_per_byte, perplexity, weighted_perplexity

    pairs = [(-12.5, 4), (-80.0, 25), (-3.0, 1)]
    scores, weights = zip(*(item_score("word_perplexity", list(pair)) for pair in pairs), strict=True)
    assert np.exp(np.average(scores, weights=weights)) == pytest.approx(weighted_perplexity(pairs))
    scores, weights = zip(*(item_score("bits_per_byte", pair) for pair in pairs), strict=True)
    assert np.average(scores, weights=weights) == pytest.approx(bits_per_byte(pairs))
    scores, weights = zip(*(item_score("perplexity", one) for one, _ in pairs), strict=True)
    assert np.exp(np.average(scores, weights=weights)) == pytest.approx(perplexity([one for one, _ in pairs]))
    assert "bits_per_byte" not in PERPLEXITIES


def test_a_metric_over_all_items_gives_none_a_score():
    assert item_score("acc", True) == (1.0, 1.0)
    with pytest.raises(ValueError, match="metric 'mcc' has no number for each item"):
        item_score("mcc", [1, 0])
