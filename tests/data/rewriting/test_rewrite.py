import pytest
from datasets import Dataset

from tests.conftest import tiny_model
from trl_prune.data.generation import Sampling
from trl_prune.data.rewriting.rewrite import rewrite_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


SAMPLING = Sampling(max_new_tokens=8, batch_size=4)


def teacher(tokenizer, loads=None):
    def load():
        if loads is not None:
            loads.append(1)
        return tiny_model("llama")

    return LazyTeacher(load, tokenizer, "tiny")


def test_every_row_stays_with_provenance(rows, tokenizer, tmp_path):
    told = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path)
    assert len(told) == len(rows)
    for before, after in zip(rows, told, strict=True):
        assert after["prompt"] == before["prompt"]
        assert after["provenance"] in ("rewritten", "reference")
        assert (after["completion"] == before["completion"]) or after["provenance"] == "rewritten"
        assert (after["verdict"] == "accepted") == (after["provenance"] == "rewritten")


def test_a_second_pass_reads_what_the_first_wrote_and_loads_nothing(rows, tokenizer, tmp_path):
    loads = []
    first = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer, loads), SAMPLING, tmp_path)
    second = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer, loads), SAMPLING, tmp_path)
    assert list(first) == list(second)
    assert len(loads) == 1


def test_two_processes_give_what_one_gives(rows, tokenizer, tmp_path):
    alone = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "one")

    def other():  # what the second process does while the first one waits
        shared = ProcessShare(1, 2, lambda: None)
        rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "two", shared)

    shared = rewrite_rows(
        Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "two", ProcessShare(0, 2, other)
    )
    assert list(alone) == list(shared)


def test_rows_without_answers_stay_as_they_are(rows, tokenizer, tmp_path):
    mixed = [rows[0], rows[1] | {"completion": [{"role": "assistant", "content": ""}]}]
    told = rewrite_rows(Dataset.from_list(mixed), teacher(tokenizer), SAMPLING, tmp_path)
    assert told[1]["verdict"] == "not_asked"
    assert told[1]["completion"] == mixed[1]["completion"]


def test_unknown_answer_type_is_named(rows, tokenizer, tmp_path):
    wrong = [rows[0] | {"answer_type": "nummer"}]
    with pytest.raises(InputError, match="'nummer'.*allowed: open, phrase"):
        rewrite_rows(Dataset.from_list(wrong), teacher(tokenizer), SAMPLING, tmp_path)
