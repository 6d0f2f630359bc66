import subprocess
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_tokenizer
from trl_prune.data.teacher_cache.sequences import places_of, row_keys, shifts_of, tokenizer_fingerprint


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
    apart = torch.cat([row_keys(row(part)) for part in sequences])
    assert torch.equal(row_keys(packed), apart)
    teaching = [part for part in sequences if any(learned for _, learned in part[1:])]
    assert len(apart) == len(teaching)


def test_tokens_and_learned_places_make_the_key():
    base = row_keys({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})
    same = row_keys({"input_ids": [1, 2, 3], "labels": [1, 2, 3]})
    other_token = row_keys({"input_ids": [9, 2, 3], "labels": [-100, 2, 3]})
    other_label = row_keys({"input_ids": [1, 2, 3], "labels": [-100, -100, 3]})
    moved = row_keys({"input_ids": [1, 2], "labels": [-100, 2]})
    assert torch.equal(base, same), "the first token has nothing before it to predict it"
    assert len({tuple(key.flatten().tolist()) for key in (base, other_token, other_label, moved)}) == 4


def test_places_are_told_once():
    one, two = row([(1, True), (2, True)]), row([(1, True), (3, False), (4, True)])
    packed = {
        "input_ids": one["input_ids"] + two["input_ids"],
        "labels": one["labels"] + two["labels"],
        "seq_lengths": [2, 3],
    }
    told = places_of([one, packed, two])
    assert [(place.row, place.start, place.tokens, place.positions) for place in told] == [(0, 0, 2, 1), (1, 2, 3, 1)]


def test_each_sequence_has_its_own_random_numbers():
    key = (-3, 2**62)
    many = shifts_of(key, 10_000, 0)
    assert many.dtype == torch.float64
    assert ((many >= 0) & (many < 1)).all()
    assert abs(float(many.mean()) - 0.5) < 0.02
    assert torch.equal(shifts_of(key, 5, 0), many[:5]), "numbers do not depend on how many are asked for"
    assert not torch.equal(shifts_of((-3, 1), 5, 0), many[:5])
    assert not torch.equal(shifts_of(key, 5, 1), many[:5])


def test_keys_and_numbers_are_the_same_in_another_process():
    script = (
        "from trl_prune.data.teacher_rows import row_keys, shifts_of\n"
        "key = row_keys({'input_ids': [5, 6, 7], 'labels': [-100, 6, 7]})[0].tolist()\n"
        "print(key, shifts_of(tuple(key), 2, 0).tolist())"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    key = row_keys({"input_ids": np.array([5, 6, 7]), "labels": [-100, 6, 7]})[0].tolist()
    assert told == f"{key} {shifts_of(tuple(key), 2, 0).tolist()}\n"


def test_a_tokenizers_fingerprint_outlives_its_use_and_knows_another():
    one, other = tiny_tokenizer(), tiny_tokenizer()
    before = tokenizer_fingerprint(one)
    one(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(one) == before == tokenizer_fingerprint(other)
    other.add_tokens(["new"])
    assert tokenizer_fingerprint(other) != before
