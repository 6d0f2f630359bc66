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


def test_every_row_is_kept_with_its_provenance(rows, tokenizer, tmp_path):
    rewritten = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path)
    assert len(rewritten) == len(rows)
    for before, after in zip(rows, rewritten, strict=True):
        assert after["prompt"] == before["prompt"]
        assert after["provenance"] in ("rewritten", "reference")
        assert (after["completion"] == before["completion"]) or after["provenance"] == "rewritten"
        assert (after["verdict"] == "accepted") == (after["provenance"] == "rewritten")


def test_a_second_pass_reads_the_first_ones_answers_and_loads_no_model(rows, tokenizer, tmp_path):
    loads = []
    first = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer, loads), SAMPLING, tmp_path)
    second = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer, loads), SAMPLING, tmp_path)
    assert list(first) == list(second)
    assert len(loads) == 1


def test_two_processes_give_the_same_rows_as_one(rows, tokenizer, tmp_path):
    single = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "one")

    def run_second_process():  # while the first one waits
        share = ProcessShare(1, 2, wait_for_everyone=lambda: None)
        rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "two", share)

    share = ProcessShare(0, 2, wait_for_everyone=run_second_process)
    shared = rewrite_rows(Dataset.from_list(rows), teacher(tokenizer), SAMPLING, tmp_path / "two", share)
    assert list(single) == list(shared)


def test_rows_without_an_answer_are_unchanged(rows, tokenizer, tmp_path):
    mixed = [rows[0], rows[1] | {"completion": [{"role": "assistant", "content": ""}]}]
    rewritten = rewrite_rows(Dataset.from_list(mixed), teacher(tokenizer), SAMPLING, tmp_path)
    assert rewritten[1]["verdict"] == "not_asked"
    assert rewritten[1]["completion"] == mixed[1]["completion"]


def test_an_unknown_answer_type_is_named(rows, tokenizer, tmp_path):
    invalid = [rows[0] | {"answer_type": "nummer"}]
    with pytest.raises(InputError, match="'nummer'.*allowed: open, phrase"):
        rewrite_rows(Dataset.from_list(invalid), teacher(tokenizer), SAMPLING, tmp_path)
