from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from trl_prune.data.selection.budget import allocate
from trl_prune.data.selection.concepts import Concepts
from trl_prune.data.selection.consistency import ConceptGraph
from trl_prune.data.selection.paser import COSTS, ORDERS, PaserSettings, row_scores, select_by_paser
from trl_prune.data.selection.pool import Pool
from trl_prune.errors import InputError


def concepts_of(rows):
    """Concepts from each row's ids."""
    ids = np.array([concept for row in rows for concept in row], dtype=np.int32)
    return Concepts(np.cumsum([0, *map(len, rows)]), ids, [f"name {index}" for index in range(ids.max(initial=0) + 1)])


def pool_of(clusters, divergence, tokens=None, concepts=None):
    """A pool whose rows are the odd numbers, so that positions cannot pass for rows."""
    count = len(clusters)
    return Pool(
        rows=2 * np.arange(count) + 1,
        tokens=np.full(count, 50) if tokens is None else np.array(tokens),
        answer_tokens=np.full(count, 20),
        divergence=np.array(divergence, dtype=float),
        clusters=np.array(clusters),
        concepts=concepts_of([[] for _ in clusters] if concepts is None else concepts),
    )


def planted_pool(rows=300, seed=0):
    """Three clusters of equal size with mean divergences of exactly 0.3, 0.2 and 0.1."""
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.arange(rows) % 3)
    divergence = rng.random(rows) * 0.1
    for cluster, mean in enumerate((0.3, 0.2, 0.1)):
        divergence[clusters == cluster] += mean - divergence[clusters == cluster].mean()
    return pool_of(clusters, divergence, rng.integers(10, 500, rows))


@st.composite
def pools(draw):
    """Pools with ties, rows without an answer, and concepts in conflict; sums of the divergences are exact."""
    count = draw(st.integers(1, 25))
    clusters = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    divergence = draw(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, np.nan]), min_size=count, max_size=count))
    tokens = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    concepts = draw(st.lists(st.sets(st.integers(0, 5), max_size=3).map(sorted), min_size=count, max_size=count))
    return pool_of(clusters, divergence, tokens, concepts), concepts


def test_a_clusters_rows_are_in_proportion_to_its_degradation():
    selection = select_by_paser(planted_pool(), 60, PaserSettings())
    assert [part.chosen for part in selection.per_cluster] == [30, 20, 10]
    assert [part.budget for part in selection.per_cluster] == [30, 20, 10]
    assert [part.rows for part in selection.per_cluster] == [100, 100, 100]
    np.testing.assert_allclose([part.degradation for part in selection.per_cluster], [0.3, 0.2, 0.1])


@pytest.mark.parametrize("ranking", ["efficiency", "divergence"])
@pytest.mark.parametrize("cost", list(COSTS))
def test_a_cluster_gives_its_rows_of_highest_score(ranking, cost):
    pool = planted_pool()
    selection = select_by_paser(pool, 60, PaserSettings(ranking=ranking, cost=cost))
    log_cost = {"squared_tokens": np.log(pool.tokens**2.0), "none": 1.0}[cost]
    score = pool.divergence / (log_cost if ranking == "efficiency" else 1.0)
    expected = []
    for cluster, count in enumerate([30, 20, 10]):
        members = np.flatnonzero(pool.clusters == cluster)
        expected += (2 * members[np.argsort(-score[members])[:count]] + 1).tolist()
    assert selection.rows.tolist() == sorted(expected)


def test_a_shorter_row_of_equal_divergence_comes_first():
    pool = pool_of([0, 0, 0], [0.2, 0.2, 0.2], [900, 30, 200])
    assert select_by_paser(pool, 1, PaserSettings()).rows.tolist() == [3]
    assert select_by_paser(pool, 1, PaserSettings(cost="none")).rows.tolist() == [1]


def test_a_row_of_one_token_has_a_finite_score():
    pool = pool_of([0, 0], [0.2, 0.2], [1, 2])
    assert np.isfinite(row_scores(pool, PaserSettings())).all()


@given(pools(), st.data())
def test_a_selection_has_its_budget_or_names_what_is_missing(case, data):
    pool, _ = case
    budget = data.draw(st.integers(1, len(pool)))
    paser = PaserSettings(
        allocation=data.draw(st.sampled_from(["degradation", "equal", "softmax", "size"])),
        ranking=data.draw(st.sampled_from(["efficiency", "divergence", "random"])),
        consistency=data.draw(st.sampled_from(["hard", "soft", "off"])),
        order=data.draw(st.sampled_from(list(ORDERS))),
    )
    answered = np.count_nonzero(~np.isnan(pool.divergence))
    everything = select_by_paser(pool, answered, replace(paser, consistency="off")) if answered else None
    assert everything is None or len(everything.rows) == answered
    try:
        selection = select_by_paser(pool, budget, paser, seed=3)
    except InputError:
        event("too few rows")
        assert budget > answered or paser.consistency == "hard"
        return
    assert budget <= answered
    assert len(set(selection.rows.tolist())) == budget
    assert selection.rows.tolist() == sorted(selection.rows.tolist())
    positions = (selection.rows - 1) // 2
    assert not np.isnan(pool.divergence[positions]).any()
    for part in selection.per_cluster:
        assert part.chosen == np.count_nonzero(pool.clusters[positions] == part.cluster)
        assert part.chosen + part.rejected <= part.candidates <= part.rows
    np.testing.assert_array_equal(select_by_paser(pool, budget, paser, seed=3).rows, selection.rows)
    assert not set(selection.rejections.rows.tolist()) & set(selection.rows.tolist())


@given(pools(), st.data())
def test_the_filter_follows_the_definition_row_by_row(case, data):
    pool, concepts = case
    answered = np.count_nonzero(~np.isnan(pool.divergence))
    budget = data.draw(st.integers(1, max(answered, 1)))
    expected = chosen_row_by_row(pool, concepts, budget)
    if expected is None:
        with pytest.raises(InputError, match="budget is"):
            select_by_paser(pool, budget, PaserSettings(consistency="hard"))
    else:
        assert select_by_paser(pool, budget, PaserSettings(consistency="hard")).rows.tolist() == expected


def chosen_row_by_row(pool, concepts, budget):
    """The selection from Python lists, as the paper describes it, or None where too few rows survive."""
    score = [d / np.log(max(t, 2) ** 2) for d, t in zip(pool.divergence, pool.tokens, strict=True)]
    labels = range(pool.num_clusters)
    queues = {
        c: sorted((r for r in range(len(pool)) if pool.clusters[r] == c and score[r] >= 0), key=lambda r: -score[r])
        for c in labels
    }
    sizes = [len(queues[c]) for c in labels]
    damage = [np.mean(pool.divergence[queues[c]]) if queues[c] else 0.0 for c in labels]
    weights = np.array(damage if sum(damage) else sizes, dtype=float)
    weights /= max(weights.sum(), 1e-300)
    graph, accepted = ConceptGraph(), []
    while len(accepted) < budget:
        room = [len(queues[c]) for c in labels]
        if not any(room):
            return None
        counts = allocate(min(budget - len(accepted), sum(room)), weights, room)
        for c in sorted(labels, key=lambda c: -damage[c]):
            taken = 0
            while taken < counts[c] and queues[c]:
                row = queues[c].pop(0)
                if not graph.conflicts(concepts[row]):
                    graph.add(concepts[row])
                    accepted.append(row)
                    taken += 1
    return sorted(2 * row + 1 for row in accepted)


def test_planted_conflicts_are_rejected_and_their_budget_goes_to_other_clusters():
    # cluster 0: four rows that each contradict the first; cluster 1: six rows without concepts
    concepts = [[0, 1], [2, 3], [0, 2], [1, 3], [0, 3]] + [[]] * 6
    pool = pool_of([0] * 5 + [1] * 6, [0.9, 0.8, 0.7, 0.6, 0.5] + [0.1] * 6, concepts=concepts)
    selection = select_by_paser(pool, 7, PaserSettings(consistency="hard"))
    assert selection.rows.tolist() == [1, 3, 11, 13, 15, 17, 19]
    assert [(part.budget, part.chosen, part.rejected) for part in selection.per_cluster] == [(5, 2, 3), (2, 5, 0)]
    assert selection.rejections.rows.tolist() == [5, 7, 9]
    assert selection.rejections.examples(1) == [{"row": 5, "cluster": 0, "conflict": ["name 0", "name 2"]}]


def test_too_few_survivors_name_what_to_change():
    concepts = [[0, 1], [2, 3], [0, 2], [1, 3]]
    pool = pool_of([0] * 4, [0.4, 0.3, 0.2, 0.1], concepts=concepts)
    message = "select.budget is 3 rows, and 2 are left: the consistency filter rejected 2 of 4; lower `select.budget`"
    with pytest.raises(InputError, match=message):
        select_by_paser(pool, 3, PaserSettings(consistency="hard"))
    assert select_by_paser(pool, 3, PaserSettings(consistency="soft")).rows.tolist() == [1, 3, 5]


def test_rows_without_an_answer_are_named_where_they_are_missing():
    with pytest.raises(InputError, match="budget is 2 rows, and 1 of the 3 rows have an answer"):
        select_by_paser(pool_of([0, 0, 0], [np.nan, 0.1, np.nan]), 2, PaserSettings())


@pytest.mark.parametrize(("damage", "rejected"), [((0.9, 0.8, 0.1), 1), ((0.2, 0.1, 0.9), 0)])
def test_the_most_degraded_cluster_decides_what_is_consistent(damage, rejected):
    # concepts 0 and 1 conflict if they become known one by one before the row that has both
    pool = pool_of([0, 0, 1, 2, 2], [damage[0], damage[1], damage[2], 0, 0], concepts=[[0], [1], [0, 1], [2], [3]])
    selection = select_by_paser(pool, 4, PaserSettings(consistency="hard", allocation="size"))
    assert len(selection.rejections) == rejected
    assert (5 in selection.rows) == (not rejected)


def test_orders_of_clusters():
    assert ORDERS["degradation"](np.array([0.1, np.nan, 0.9, 0.1]), 0).tolist() == [2, 0, 3, 1]
    drawn = {tuple(ORDERS["random"](np.zeros(4), seed)) for seed in range(20)}
    assert {tuple(sorted(order)) for order in drawn} == {(0, 1, 2, 3)}
    assert len(drawn) > 5


def test_the_graph_is_not_needed_without_the_filter():
    pool = pool_of([0, 0], [0.1, 0.2])
    pool = Pool(pool.rows, pool.tokens, pool.answer_tokens, pool.divergence, clusters=pool.clusters)
    selection = select_by_paser(pool, 1, PaserSettings(consistency="off"))
    assert selection.rows.tolist() == [3]
    assert len(selection.rejections) == 0
