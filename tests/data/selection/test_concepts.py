from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.data.selection.concepts import candidate_phrases, characteristic_phrases, extract_concepts, keyphrases


# With repeated words, so that phrases are shared.
TEXTS = st.text("ab cd,.\n1the-'春天é", max_size=40) | st.text(max_size=40)


def names_of(concepts, row):
    return {concepts.names[concept] for concept in concepts.of(row)}


def test_phrases_end_at_stop_words_punctuation_numbers_and_lines():
    text = "The red car and the old stone bridge, 12 trees\nriver"
    assert candidate_phrases(text) == [("red", "car"), ("old", "stone", "bridge"), ("tree",), ("river",)]


def test_a_longer_run_counts_as_its_words():
    assert candidate_phrases("alpha beta gamma delta") == [("alpha",), ("beta",), ("gamma",), ("delta",)]


@pytest.mark.parametrize(
    ("words", "singular"),
    [
        ("Car cars CARS car's", "car"),
        ("city cities", "city"),
        ("box boxes", "box"),
        ("class classes", "class"),
        ("house houses", "house"),
        ("series", "series"),
        ("bus", "bus"),
        ("analysis", "analysis"),
    ],
)
def test_forms_of_a_word_are_one_concept(words, singular):
    assert keyphrases(words.replace(" ", ", ")) == [singular]


@pytest.mark.parametrize(
    "text", ["", "12 + 30 = 42", "don't", "it's they're we\u2019ll", "-- - '' __", "a b c", "x" * 41]
)
def test_texts_without_words_have_no_concepts(text):
    assert keyphrases(text) == []


def test_scores_are_degree_by_frequency():
    # red: degree 2 + 1, frequency 2; car: 2, 1 -> "red car" 1.5 + 2, "red" 1.5; boat 1 each, twice
    assert keyphrases("red car, tree, red, boat, boat") == ["red car", "red", "boat", "tree"]
    assert keyphrases("red car, tree, red, boat, boat", limit=2) == ["red car", "red"]


def test_texts_in_other_scripts_give_units_of_their_own():
    assert keyphrases("春天的诗。春天") == ["春天", "天的", "的诗"]
    assert keyphrases("हिन्दी, हिन्दी भाषा") == ["हिन्दी भाषा", "हिन्दी"]
    assert keyphrases("使用python编程") == ["使用", "编程", "python"]
    assert "read_csv" in keyphrases("frame = read_csv(path, sep=',')")
    assert keyphrases("cafe\u0301") == keyphrases("café") == ["café"]


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_concepts_are_the_keyphrases_that_enough_rows_have(texts, limit, min_rows):
    per_row = [keyphrases(text, limit) for text in texts]
    counts = Counter(name for names in per_row for name in names)
    concepts = extract_concepts(iter(texts), limit, min_rows)
    assert len(concepts) == len(texts)
    for row, names in enumerate(per_row):
        assert len(names) == len(set(names)) <= limit
        assert names_of(concepts, row) == {name for name in names if counts[name] >= min_rows}
        assert concepts.of(row) == sorted(set(concepts.of(row)))
    in_order = dict.fromkeys(name for names in per_row for name in names if counts[name] >= min_rows)
    assert concepts.names == list(in_order)


def test_texts_are_read_through_the_progress_bar():
    seen = []

    def progress(texts):
        for text in texts:
            seen.append(text)
            yield text

    extract_concepts(["one tree", "two trees"], progress=progress)
    assert seen == ["one tree", "two trees"]


def test_characteristic_phrases_tell_a_cluster_from_the_others():
    texts = ["apples, question", "apples, question", "apples, pears", "boats, question", "boats, question", "pears"]
    labels = np.array([0, 0, 0, 1, 1, 0])
    concepts = extract_concepts(texts)
    assert characteristic_phrases(concepts, labels, 2) == [["apple", "pear"], ["boat", "question"]]


def test_characteristic_phrases_follow_the_dense_formula():
    rng = np.random.default_rng(0)
    words = [f"word{chr(97 + index)}" for index in range(20)]
    labels = rng.integers(0, 3, 60)
    texts = [", ".join(rng.choice(words[label * 5 : label * 5 + 10], 4, replace=False)) for label in labels]
    concepts = extract_concepts(texts)
    frequency = np.zeros((3, len(concepts.names)))
    for row, label in enumerate(labels):
        frequency[label, concepts.of(row)] += 1
    score = frequency / frequency.sum(1, keepdims=True) * np.log(1 + frequency.sum() / 3 / frequency.sum(0))
    for cluster, phrases in enumerate(characteristic_phrases(concepts, labels, 5)):
        chosen = [score[cluster, concepts.names.index(phrase)] for phrase in phrases]
        np.testing.assert_allclose(chosen, np.sort(score[cluster])[::-1][:5])


def test_a_cluster_without_concepts_has_no_phrases():
    concepts = extract_concepts(["trees", "trees", "5"])
    assert characteristic_phrases(concepts, np.array([0, 0, 1]), 3) == [["tree"], []]
