"""Reference: loops over the rows, one at a time."""

from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.selection import row_batches
from trl_prune.data.selection.row_array import missing_of_share, share_of_chunks
from trl_prune.data.selection.row_batches import (
    AnswerRows,
    measure_chunks,
)
from trl_prune.data.sharing import ProcessShare
from trl_prune.losses.positions import MASKED


def prepared(lengths):
    """Rows of a prompt and an answer: `(prompt tokens, answer tokens)` of each."""
    rows, token = [], 0
    for prompt, answer in lengths:
        ids = list(range(token, token := token + prompt + answer))
        rows.append({"input_ids": ids, "labels": [MASKED] * prompt + ids[prompt:]})
    return rows


LENGTHS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@given(LENGTHS, st.integers(1, 40))
def test_batches_hold_every_row_with_an_answer_once_and_keep_the_budget(lengths, batch_tokens):
    answers = AnswerRows.read(prepared(lengths))
    seen, longest = [], []
    for batch in answers.batches(answers.order, batch_tokens):
        ids = batch.inputs["input_ids"]
        assert ids.numel() <= batch_tokens or len(ids) == 1
        longest.append(ids.shape[1])
        seen += batch.rows.tolist()
    with_answer = [row for row, (prompt, answer) in enumerate(lengths) if answer - (prompt == 0) > 0]
    assert sorted(seen) == with_answer
    assert longest == sorted(longest, reverse=True)


@given(LENGTHS)
def test_means_and_labels_are_those_of_each_row(lengths):
    rows = prepared(lengths)
    answers = AnswerRows.read(rows)
    for batch in answers.batches(answers.order, 40):
        states = batch.inputs["input_ids"][..., None]
        expected = [
            [token for token, label in zip(row["input_ids"][:-1], row["labels"][1:], strict=True) if label != MASKED]
            for row in (rows[index] for index in batch.rows)
        ]
        assert batch.answer_states(states)[:, 0].tolist() == list(chain(*expected))
        assert batch.labels.tolist() == [token + 1 for token in chain(*expected)]
        assert batch.answer_tokens == list(map(len, expected)) == answers.answer_tokens[batch.rows].tolist()
        np.testing.assert_allclose(batch.row_means(batch.labels.float()), [np.mean(part) + 1 for part in expected])
        assert batch.inputs["attention_mask"].sum(1).tolist() == [
            len(rows[index]["input_ids"]) for index in batch.rows
        ]


def test_positions_name_their_rows():
    answers = AnswerRows.read(prepared([(2, 2), (2, 3), (5, 1)]))
    (batch,) = answers.batches(answers.order, 100)
    assert batch.rows.tolist() == [2, 1, 0]
    assert batch.rows_at(torch.tensor([True, False, False, False, True, True])) == [0, 2]


def test_the_digest_changes_with_any_token_label_or_boundary():
    rows = prepared([(2, 2), (2, 3)])
    digests = {AnswerRows.read(rows).digest, AnswerRows.read(rows[::-1]).digest}
    for name, position in (("input_ids", 0), ("labels", 3)):
        changed = [{key: list(values) for key, values in row.items()} for row in rows]
        changed[1][name][position] = 99
        digests.add(AnswerRows.read(changed).digest)
    assert len(digests) == 4
    assert AnswerRows.read(rows).digest == AnswerRows.read(prepared([(2, 2), (2, 3)])).digest


@given(st.integers(0, 30), st.integers(1, 5))
def test_shares_are_disjoint_and_hold_every_chunk(rows, num_processes):
    answers = AnswerRows.read(prepared([(1, 1)] * rows))
    array = answers.array("x.npy", 1, "key")
    shares = [share_of_chunks(array, ProcessShare(index, num_processes)) for index in range(num_processes)]
    assert sorted(chain(*shares)) == list(range(array.num_chunks))


def test_measures_are_written_and_returned_in_the_order_of_the_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(row_batches, "CHUNK_ROWS", 2)
    lengths = [(1, 3), (0, 1), (4, 2), (3, 0), (1, 7)]
    answers = AnswerRows.read(prepared(lengths))
    array = answers.array(tmp_path / "x.npy", 2, "key")
    array.create()

    def measure(batch):
        return np.stack([batch.row_means(batch.labels), batch.answer_tokens], 1)

    for index in range(2):
        chunks = missing_of_share(array, ProcessShare(index, 2))
        measure_chunks(array, chunks, answers, measure, 10)
    nan = np.nan
    expected = [[2, 3], [nan, nan], [9.5, 2], [nan, nan], [18, 7]]
    np.testing.assert_array_equal(answers.in_dataset_order(array.read()), expected)
