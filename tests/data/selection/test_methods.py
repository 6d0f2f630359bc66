from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.data.selection.concepts import Concepts
from trl_prune.data.selection.methods import METHODS, Request, select, selection_figures
from trl_prune.data.selection.paser import PaserSettings, select_by_paser
from trl_prune.data.selection.pool import Pool
from trl_prune.errors import InputError


def random_pool(rows=400, seed=0, targets=5):
    """A pool with everything measured, in which a tenth of the rows have no answer."""
    rng = np.random.default_rng(seed)
    unanswered = rng.random(rows) < 0.1
    scores = np.where(unanswered[:, None], np.nan, rng.random((rows, 3)))
    answer_tokens = np.where(unanswered, 0, rng.integers(1, 200, rows))
    return Pool(
        rows=np.sort(rng.choice(10 * rows, rows, replace=False)),
        tokens=answer_tokens + rng.integers(5, 100, rows),
        answer_tokens=answer_tokens,
        divergence=scores[:, 0],
        cross_entropy=scores[:, 1] * 4,
        answer_alone_cross_entropy=scores[:, 2] * 4,
        clusters=np.concatenate([np.arange(4), rng.integers(0, 4, rows - 4)]),
        target_similarity=rng.standard_normal((rows, targets)).astype(np.float32),
        concepts=Concepts(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32), []),
    )


def reference_for(name, pool):
    return select("paser", pool, Request(40)).rows if name == "random_matched" else None


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_chooses_its_budget_and_repeats_itself(name):
    pool = random_pool()
    request = Request(40, seed=5, reference=reference_for(name, pool))
    selection = select(name, pool, request)
    assert len(selection.rows) == (len(pool) if name == "full" else 40)
    assert set(selection.rows.tolist()) <= set(pool.rows.tolist())
    assert (np.diff(selection.rows) > 0).all()
    np.testing.assert_array_equal(select(name, pool, request).rows, selection.rows)
    if name not in {"full", "random", "random_matched", "rds"}:
        assert not np.isnan(pool.divergence[np.isin(pool.rows, selection.rows)]).any()


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_needs_what_it_says_and_nothing_else(name):
    pool = random_pool()
    optional = {field.name for field in fields(Pool)} - {"rows", "tokens", "answer_tokens"}
    reference = reference_for(name, pool)
    least = replace(pool, **dict.fromkeys(optional - METHODS[name].needs))
    np.testing.assert_array_equal(
        select(name, least, Request(40, reference=reference)).rows,
        select(name, pool, Request(40, reference=reference)).rows,
    )
    for need in METHODS[name].needs:
        with pytest.raises(ValueError, match=f"{name} reads {need} of the pool"):
            select(name, replace(pool, **{need: None}), Request(40))


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"full", "random_matched"}))
def test_a_budget_above_the_rows_is_an_error(name):
    with pytest.raises(InputError, match="budget is 401 rows"):
        select(name, random_pool(), Request(401))


@pytest.mark.parametrize("name", ["paser", "equal", "longest", "perplexity", "ifd"])
def test_a_budget_above_the_scored_rows_is_an_error(name):
    with pytest.raises(InputError, match="budget is 400 rows, and .* of the 400 rows have"):
        select(name, random_pool(), Request(400))


def test_paser_and_equal_are_the_choice_with_their_allocation():
    pool, paser = random_pool(), PaserSettings(ranking="divergence", consistency="off")
    request = Request(40, paser=paser)
    np.testing.assert_array_equal(select("paser", pool, request).rows, select_by_paser(pool, 40, paser).rows)
    equal = select("equal", pool, request)
    assert [part.chosen for part in equal.per_cluster] == [10] * 4
    without_concepts = replace(pool, concepts=None)
    np.testing.assert_array_equal(select("equal", without_concepts, request).rows, equal.rows)


def test_random_draws_nest_and_depend_on_the_seed():
    pool = random_pool()
    small, large = (set(select("random", pool, Request(budget, seed=1)).rows.tolist()) for budget in (30, 90))
    assert small < large
    assert small != set(select("random", pool, Request(30, seed=2)).rows.tolist())


def test_random_draws_every_row_equally_often():
    pool = random_pool(rows=40)
    drawn = np.zeros(40)
    for seed in range(1000):
        drawn[np.isin(pool.rows, select("random", pool, Request(10, seed=seed)).rows)] += 1
    assert np.abs(drawn / 1000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 1000)


@pytest.mark.parametrize("favourite", ["longest", "perplexity"])
def test_matched_rows_are_as_long_as_the_reference_and_otherwise_random(favourite):
    pool = random_pool(rows=4000)
    reference = select(favourite, pool, Request(400))
    matched = select("random_matched", pool, Request(1, seed=3, reference=reference.rows))
    lengths = [np.sort(pool.tokens[np.isin(pool.rows, chosen.rows)]) for chosen in (reference, matched)]
    assert len(matched.rows) == 400
    assert abs(lengths[1].mean() / lengths[0].mean() - 1) < 0.02
    edges = np.quantile(lengths[0], np.linspace(0, 1, 21), method="lower")
    np.testing.assert_array_equal(*(np.histogram(part, np.unique(edges))[0] for part in lengths))
    others = select("random_matched", pool, Request(1, seed=4, reference=reference.rows))
    assert matched.rows.tolist() != others.rows.tolist()


def test_matched_rows_of_one_length_are_all_possible():
    pool = Pool(np.arange(100), np.repeat([10, 30], 50), np.ones(100, dtype=int))
    drawn = set()
    for seed in range(40):
        rows = select("random_matched", pool, Request(1, seed=seed, reference=np.arange(50, 60))).rows
        assert len(rows) == 10
        drawn |= set(rows.tolist())
    assert drawn == set(range(50, 100))


def test_matching_without_a_reference_is_an_error():
    with pytest.raises(ValueError, match="reference"):
        select("random_matched", random_pool(), Request(10))


def test_longest_and_perplexity_take_the_highest_scores():
    pool = random_pool()
    for name, scores in (("longest", pool.answer_tokens), ("perplexity", pool.cross_entropy)):
        ranked = sorted(np.flatnonzero(pool.answer_tokens), key=lambda row, scores=scores: (-scores[row], row))
        assert select(name, pool, Request(40)).rows.tolist() == sorted(pool.rows[ranked[:40]].tolist())


def test_ifd_takes_the_highest_ratio_of_perplexities_below_one():
    pool = random_pool()
    ratio = np.exp(pool.cross_entropy) / np.exp(pool.answer_alone_cross_entropy)
    below = sorted((row for row in range(len(pool)) if ratio[row] < 1), key=lambda row: -ratio[row])
    assert select("ifd", pool, Request(40)).rows.tolist() == sorted(pool.rows[below[:40]].tolist())
    with pytest.raises(InputError, match=f"budget is {len(below) + 1} rows, and {len(below)} of the 400"):
        select("ifd", pool, Request(len(below) + 1))


@settings(max_examples=60)
@given(st.data())
def test_target_rows_take_turns_for_their_most_similar_unused_row(data):
    rows, targets = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 4))
    values = st.sampled_from([0.0, 0.25, 0.5, 0.75, np.nan])
    similarity = np.array(data.draw(st.lists(values, min_size=rows * targets, max_size=rows * targets)))
    similarity = similarity.reshape(rows, targets)
    budget = data.draw(st.integers(1, rows))
    pool = replace(random_pool(rows=max(rows, 4)), **dict.fromkeys(["clusters", "concepts"]))
    pool = Pool(pool.rows[:rows], pool.tokens[:rows], pool.answer_tokens[:rows], target_similarity=similarity)
    chosen = []
    for turn in range(targets * (rows + 1)):
        column = similarity[:, turn % targets]
        unused = [row for row in range(rows) if row not in chosen and not np.isnan(column[row])]
        if unused and len(chosen) < budget:
            chosen.append(max(unused, key=lambda row: (column[row], -row)))
    if len(chosen) < budget:
        with pytest.raises(InputError, match=f"budget is {budget} rows"):
            select("rds", pool, Request(budget))
    else:
        assert select("rds", pool, Request(budget)).rows.tolist() == sorted(pool.rows[chosen].tolist())


def test_targets_that_want_the_same_rows_go_down_their_lists():
    pool = random_pool(rows=1000)
    similarity = np.repeat(np.linspace(0, 1, 1000)[:, None], 30, axis=1)  # more used rows than a first look sorts
    selection = select("rds", replace(pool, target_similarity=similarity), Request(600))
    assert selection.rows.tolist() == pool.rows[400:].tolist()


def test_a_summary_counts_the_chosen_rows():
    pool = random_pool()
    selection = select("random", pool, Request(50))
    positions = [pool.rows.tolist().index(row) for row in selection.rows]
    figures = selection_figures(selection, pool)
    assert figures["rows"] == 50
    assert figures["tokens"] == sum(pool.tokens[positions])
    assert figures["mean_tokens"] == pytest.approx(pool.tokens[positions].mean())
    assert figures["mean_divergence"] == pytest.approx(np.nanmean(pool.divergence[positions]))
    assert figures["rows_per_cluster"] == np.bincount(pool.clusters[positions], minlength=4).tolist()
    unscored = selection_figures(selection, replace(pool, divergence=None, clusters=None))
    assert unscored["mean_divergence"] is None
    assert unscored["rows_per_cluster"] is None
