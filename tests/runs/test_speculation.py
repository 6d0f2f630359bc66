"""Prompts are drawn from rows of every format, and drafts that cannot be are refused with one sentence."""

import pytest
from datasets import Dataset

from tests.conftest import ROWS, tiny_tokenizer
from tests.recipes import recipe
from trl_prune.errors import InputError
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.speculation import (
    check_vocabulary,
    draft_dir,
    drafts_of,
    draw_prompts,
    longest_prompt,
    prompts_section,
    run_prompts,
    section_of,
)


def draw(rows, tokenizer, count=20, longest=None):
    return draw_prompts(Dataset.from_list(rows), tokenizer, count, 0, longest, {})


def test_a_rows_question_is_the_prompt_and_its_answer_the_reference(tokenizer):
    prompts = draw(ROWS, tokenizer)
    assert len(prompts) == len(ROWS)
    texts = {tokenizer.decode(prompt.ids): prompt for prompt in prompts}
    for row in ROWS:
        template = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        prompt = texts[template]
        assert tokenizer.decode(prompt.reference) == row["completion"][0]["content"]
        assert prompt.capability == row["capability"]


def test_half_of_a_plain_text_is_the_prompt(tokenizer):
    (prompt,) = draw([{"text": "abcdefgh"}, {"text": ""}], tokenizer)
    assert tokenizer.decode(prompt.ids) == "abcd"
    assert tokenizer.decode(prompt.reference) == "efgh"
    assert prompt.capability is None


def test_prompts_without_room_for_an_answer_are_left_out(tokenizer):
    rows = [{"text": "a" * length} for length in (8, 40, 12, 60)]
    found = draw(rows, tokenizer, longest=6)
    assert sorted(len(prompt.ids) for prompt in found) == [4, 6]
    assert draw(rows, tokenizer, count=1, longest=6) == found[:1]


def test_prompts_come_from_the_section_then_held_out_texts_then_training_rows(tmp_path):
    base = recipe(tmp_path)
    assert prompts_section(base) == base.dataset
    held_out = recipe(tmp_path, evaluate={"held_out": {"path": "h.jsonl"}})
    assert prompts_section(held_out).path == "h.jsonl"
    assert prompts_section(recipe(tmp_path, speculate={"dataset": {"path": "p.jsonl"}})).path == "p.jsonl"


def test_drafts_are_all_models_but_the_dense_one_or_those_named(tmp_path, dense):
    assert list(drafts_of(recipe(tmp_path))) == ["pruned", "sft", "selfd"]
    named = recipe(tmp_path, speculate={"drafts": ["sft", str(dense)]})
    assert drafts_of(named) == {"sft": "sft", dense.name: str(dense)}
    assert draft_dir(Run(named), dense.name) == dense


@pytest.mark.parametrize(
    ("drafts", "names"),
    [
        (["runs/a/prune/model"], ["prune"]),
        (["/runs/a/prune/model", "/runs/b/prune/model"], ["a-prune", "b-prune"]),
        (["sft", "./other/sft"], ["sft", "other-sft"]),
        (["a/b", "c/b", "./model"], ["a-b", "c-b", "model"]),
    ],
)
def test_drafts_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path, drafts, names):
    assert drafts_of(recipe(tmp_path, speculate={"drafts": drafts})) == dict(zip(names, drafts, strict=True))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"drafts": ["prunned"]}, "speculate.drafts names 'prunned'; did you mean 'pruned'"),
        ({"drafts": ["zzz"]}, "speculate.drafts names 'zzz'; allowed: pruned, sft, selfd"),
        ({"drafts": ["dense"]}, "speculate.drafts names 'dense'"),
        ({"drafts": ["sft", "./sft"]}, "speculate.drafts has more than one 'sft'"),
        ({"drafts": ["./x/dense"]}, "speculate.drafts names './x/dense'; wanted: a path that does not end in 'dense'"),
        ({"drafts": []}, "drafts is \\[\\]; wanted: one entry at least"),
        ({"draft_lengths": [0]}, "draft_lengths.0 is 0; wanted: greater than 0"),
        ({"draft_lengths": [2, 2]}, "draft_lengths is \\[2, 2\\]; wanted: one entry at least, and no entry twice"),
        ({"gamma": [2]}, "unknown key 'speculate.gamma'; did you mean 'speculate.draft_lengths'"),
        ({"temperature": 0}, "speculate.temperature is 0; wanted: greater than 0"),
    ],
)
def test_mistakes_in_the_section_are_one_sentence(tmp_path, section, message):
    with pytest.raises(InputError, match=message):
        recipe(tmp_path, speculate=section)


def test_rows_without_room_are_no_prompts(tmp_path):
    run = Run(recipe(tmp_path, speculate={"max_new_tokens": 1010, "draft_lengths": [4]}))
    assert longest_prompt([run.config], section_of(run.recipe)) == 10
    with pytest.raises(InputError, match="has no row with a prompt of at most 10 tokens"):
        run_prompts(run)


def test_another_vocabulary_is_refused(tokenizer):
    check_vocabulary("d", tokenizer, tiny_tokenizer())
    other = tiny_tokenizer()
    other.add_tokens(["zebra"])
    with pytest.raises(InputError, match="draft 'd' has another vocabulary .260 tokens, the target 259.: the id of"):
        check_vocabulary("d", tokenizer, other)


def test_the_section_is_optional():
    values = {"model": "m", "dataset": {"path": "d"}, "output": "o", "prune": {"target": {"layers": 3}}}
    assert section_of(parse_recipe(values, "test")).draft_lengths == [1, 2, 3, 4, 5, 8, 10]
