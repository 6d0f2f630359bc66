"""Which tasks are loaded, and what of them counts."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import tiny_tokenizer
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import (
    content_hash,
    drawn_doc_ids,
    load_tasks,
    shipped_tasks_dir,
    tasks_by_likelihood,
    think_end_token,
)


def test_a_group_is_replaced_by_its_members(tasks_dir):
    tasks = load_tasks(["tiny_group", "tiny_generated"], [tasks_dir])
    assert tasks.names == ["tiny_choice", "tiny_with_metadata", "tiny_generated"]
    assert list(tasks.groups) == ["tiny_group"]


def test_shipped_tasks_are_loaded_without_lm_evals_index():
    assert (shipped_tasks_dir() / "recovery_probes").is_dir()
    assert len(load_tasks(["recovery_probes"]).names) >= 6


@pytest.mark.slow  # reading lm-eval's own index takes 25 s
def test_unknown_tasks_are_named_with_the_closest_match():
    with pytest.raises(InputError, match="'recovery_probs'.*did you mean 'recovery_probes'"):
        load_tasks(["recovery_probs"])


def test_no_task_and_a_folder_that_does_not_exist_are_refused(tasks_dir):
    with pytest.raises(InputError, match="no task is named; name one at least"):
        load_tasks([])
    with pytest.raises(InputError, match="include_path names '/nowhere', which is not a folder"):
        load_tasks(["tiny_choice"], [tasks_dir, "/nowhere"])


def test_tasks_that_generate_are_told_from_those_that_score_given_answers(tasks_dir):
    tasks = load_tasks(["tiny_group", "tiny_generated"], [tasks_dir])
    assert tasks_by_likelihood(tasks) == ["tiny_choice", "tiny_with_metadata"]


@pytest.mark.parametrize("has_id", [True, False])
def test_what_ends_thoughts_is_the_tags_id_or_its_text(has_id):
    tokenizer = tiny_tokenizer()
    if has_id:
        tokenizer.add_special_tokens({"extra_special_tokens": ["</think>"]})
    assert think_end_token(tokenizer) is None, "the template does not know the tag"
    tokenizer.chat_template += "{# </think> #}"
    expected = tokenizer.convert_tokens_to_ids("</think>") if has_id else "</think>"
    assert think_end_token(tokenizer) == expected


def test_a_larger_limit_draws_the_items_of_a_smaller_one_and_more(tasks_dir):
    task = load_tasks(["tiny_choice"], [tasks_dir]).tasks["tiny_choice"]
    drawn = [drawn_doc_ids(task, limit, 3) for limit in (1, 4, 5, 19, 20, 99)]
    for smaller, larger in pairwise(drawn):
        assert set(smaller) <= set(larger)
    assert [len(ids) for ids in drawn] == [1, 4, 5, 19, 20, 20]
    assert drawn[2] != list(range(5))
    assert drawn[2] == sorted(drawn[2])
    assert drawn_doc_ids(task, 5, 4) != drawn[2]
    assert drawn_doc_ids(task, None, 3) == list(range(20))


def test_the_content_hash_changes_with_a_prompt_a_setting_and_a_function(tasks_dir, tmp_path):
    texts = [path.read_text() for path in Path(tasks_dir).glob("*.yaml")]
    text = next(text for text in texts if "task: tiny_generated" in text)
    (tmp_path / "filters.py").write_text("def score(doc, results):\n    return {'exact_match': 0}\n")

    def hash_of(text: str) -> str:
        (tmp_path / "task.yaml").write_text(text)
        return content_hash(load_tasks(["tiny_generated"], [str(tmp_path)]))

    assert hash_of(text) == hash_of(text)
    variants = [
        text,
        text.replace("{{question}}", "{{question}} so"),
        text.replace("max_gen_toks: 4", "max_gen_toks: 5"),
        text + "metadata: {version: 3}\n",
        text + "process_results: !function filters.score\n",
    ]
    assert len({hash_of(variant) for variant in variants}) == len(variants)
