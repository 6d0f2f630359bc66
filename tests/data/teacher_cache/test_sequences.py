import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_tokenizer
from trl_prune.data.teacher_cache.sequences import (
    distinct_sequences,
    random_shifts,
    row_keys,
    tokenizer_fingerprint,
)


SEQUENCES = st.lists(
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=5
)


def row(sequence):
    return {
        "input_ids": [token for token, _ in sequence],
        "labels": [token if learned else -100 for token, learned in sequence],
    }


@given(SEQUENCES)
@settings(deadline=None)
def test_a_packed_row_has_the_keys_of_its_sequences(sequences):
    joined = {name: [token for part in sequences for token in row(part)[name]] for name in ("input_ids", "labels")}
    packed = joined | {"seq_lengths": [len(part) for part in sequences]}
    expected = torch.cat([row_keys(row(part)) for part in sequences])
    assert torch.equal(row_keys(packed), expected)
    learned = [part for part in sequences if any(learned for _, learned in part[1:])]
    assert len(expected) == len(learned)


def test_the_key_depends_on_tokens_and_learned_positions():
    key = row_keys({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})
    first_learned = row_keys({"input_ids": [1, 2, 3], "labels": [1, 2, 3]})
    other_token = row_keys({"input_ids": [9, 2, 3], "labels": [-100, 2, 3]})
    other_label = row_keys({"input_ids": [1, 2, 3], "labels": [-100, -100, 3]})
    shorter = row_keys({"input_ids": [1, 2], "labels": [-100, 2]})
    assert torch.equal(key, first_learned), "no token predicts the first one"
    assert len({tuple(part.flatten().tolist()) for part in (key, other_token, other_label, shorter)}) == 4


def test_each_sequence_is_listed_once():
    first, second = row([(1, True), (2, True)]), row([(1, True), (3, False), (4, True)])
    packed = {
        "input_ids": first["input_ids"] + second["input_ids"],
        "labels": first["labels"] + second["labels"],
        "seq_lengths": [2, 3],
    }
    spans = distinct_sequences([first, packed, second])
    assert [(span.row, span.start, span.num_tokens, span.num_positions) for span in spans] == [
        (0, 0, 2, 1),
        (1, 2, 3, 1),
    ]


def test_random_shifts_depend_on_key_and_seed_only():
    key = (-3, 2**62)
    shifts = random_shifts(key, 10_000, 0)
    assert shifts.dtype == torch.float64
    assert ((shifts >= 0) & (shifts < 1)).all()
    assert abs(float(shifts.mean()) - 0.5) < 0.02
    assert torch.equal(random_shifts(key, 5, 0), shifts[:5]), "they do not depend on the count"
    assert not torch.equal(random_shifts((-3, 1), 5, 0), shifts[:5])
    assert not torch.equal(random_shifts(key, 5, 1), shifts[:5])


@pytest.mark.slow
def test_keys_and_shifts_are_the_same_in_another_process():
    script = (
        "from trl_prune.data.teacher_cache.sequences import random_shifts, row_keys\n"
        "key = row_keys({'input_ids': [5, 6, 7], 'labels': [-100, 6, 7]})[0].tolist()\n"
        "print(key, random_shifts(tuple(key), 2, 0).tolist())"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    key = row_keys({"input_ids": np.array([5, 6, 7]), "labels": [-100, 6, 7]})[0].tolist()
    assert output == f"{key} {random_shifts(tuple(key), 2, 0).tolist()}\n"


def test_a_tokenizers_fingerprint_changes_with_its_vocabulary_but_not_with_its_use():
    tokenizer, changed = tiny_tokenizer(), tiny_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before == tokenizer_fingerprint(changed)
    changed.add_tokens(["new"])
    assert tokenizer_fingerprint(changed) != before
