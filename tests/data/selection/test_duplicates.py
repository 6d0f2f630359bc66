import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.selection.planted import planted_clusters, unit
from trl_prune.data.selection import duplicates
from trl_prune.data.selection.duplicates import equal_texts, greedy_duplicates, near_duplicates


def with_near_copies(num_rows, copies, similarity, seed=0):
    """Embeddings of which random rows are near copies of others, and the pairs."""
    vectors, _ = planted_clusters(num_rows, 10, noise=2.0, seed=seed)
    generator = np.random.default_rng(seed)
    sources, targets = np.split(generator.permutation(num_rows)[: 2 * copies], 2)
    across = generator.normal(size=(copies, vectors.shape[1]))
    across -= (across * vectors[sources]).sum(axis=1, keepdims=True) * vectors[sources]
    cosines = generator.uniform(similarity, 1, size=(copies, 1))
    vectors[targets] = cosines * vectors[sources] + np.sqrt(1 - cosines**2) * unit(across)
    return vectors, sources, targets


def one_by_one(vectors, similarity):
    """The rule, row by row."""
    stands_for, kept = [], []
    for row, vector in enumerate(vectors):
        first = next((other for other in kept if vectors[other] @ vector >= similarity), row)
        stands_for.append(first)
        if first == row:
            kept.append(row)
    return stands_for


def test_texts_are_equal_but_for_case_and_white_space():
    texts = ["What is it?", "Other", "  what\tis IT? ", "other", "What is it", "Straße", "STRASSE"]
    assert equal_texts(texts).tolist() == [0, 1, 0, 1, 4, 5, 5]


@given(st.lists(st.sampled_from(["a", "A ", "b", "c d", "c  D", ""]), max_size=30))
def test_the_first_of_equal_texts_stands_for_all(texts):
    first = equal_texts(texts)
    names = [" ".join(text.lower().split()) for text in texts]
    assert first.tolist() == [names.index(name) for name in names]


@pytest.mark.parametrize("block_rows", [3, 16, 1024])
def test_rows_are_dropped_as_one_by_one_in_order(monkeypatch, block_rows):
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", block_rows)
    vectors = unit(np.random.default_rng(0).normal(size=(120, 3)))
    assert greedy_duplicates(vectors, 0.9).tolist() == one_by_one(vectors, 0.9)


def test_a_chain_of_similar_rows_is_not_merged_into_one():
    angles = np.radians([0, 15, 30, 45])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert near_duplicates(vectors, np.cos(np.radians(16))).tolist() == [0, 0, 2, 2]


def test_planted_near_copies_are_found_without_comparing_all_pairs(monkeypatch):
    monkeypatch.setattr(duplicates, "ALL_PAIRS_ROWS", 100)
    vectors, sources, targets = with_near_copies(4000, 400, 0.955)
    stands_for = near_duplicates(vectors.astype(np.float16), 0.95)
    assert (stands_for[sources] == stands_for[targets]).mean() >= 0.98
    others = np.setdiff1d(np.arange(4000), np.concatenate([sources, targets]))
    np.testing.assert_array_equal(stands_for[others], others)


@given(st.integers(0, 1000), st.sampled_from([0.5, 0.9]))
def test_a_dropped_row_is_similar_to_an_earlier_kept_one(seed, similarity):
    vectors = unit(np.random.default_rng(seed).normal(size=(150, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "ALL_PAIRS_ROWS", 10)
        stands_for = near_duplicates(vectors, similarity, seed)
    dropped = np.flatnonzero(stands_for != np.arange(150))
    np.testing.assert_array_equal(stands_for[stands_for], stands_for)
    assert (stands_for[dropped] < dropped).all()
    assert ((vectors[dropped] * vectors[stands_for[dropped]]).sum(axis=1) >= similarity - 2e-3).all()


def test_identical_vectors_in_float16_are_duplicates_at_similarity_1():
    vectors = np.repeat(unit(np.random.default_rng(0).normal(size=(20, 384))), 2, axis=0).astype(np.float16)
    assert near_duplicates(vectors, 1.0).tolist() == [row // 2 * 2 for row in range(40)]


def test_equal_texts_and_near_duplicates_are_combined():
    texts = ["one", "two", "ONE", "three", "four"]
    vectors = unit(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0.99, 0.01, 0], [0, 0, 1]]))
    first = equal_texts(texts)
    assert first.tolist() == [0, 1, 0, 3, 4]
    unique = np.unique(first)
    assert near_duplicates(vectors, 0.95, 0, unique).tolist() == [0, 1, 0, 3]


def test_no_rows_have_no_duplicates():
    assert equal_texts([]).tolist() == near_duplicates(np.empty((0, 3), np.float16)).tolist() == []
