"""Oracles: batched, left-padded greedy answers = each prompt alone; a resumed pass = an unbroken one."""

import copy

import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.data.generation import (
    Answer,
    Sampling,
    generate_batch,
    generate_resumably,
    generation_key,
    plan_batches,
    prompt_ids,
    read_answers,
)


SAMPLING = Sampling(max_new_tokens=12, batch_size=4)


def test_batches_hold_every_prompt_once_like_lengths_together():
    prompts = [[0] * length for length in (3, 9, 1, 9, 4)]
    batches = plan_batches(prompts, 2)
    assert batches == [[1, 3], [4, 0], [2]]
    assert sorted(index for batch in batches for index in batch) == list(range(5))


def test_batched_answers_equal_single_ones(tokenizer):
    model = tiny_model("llama")
    prompts = [[(place * 11 + length) % 250 for place in range(length)] for length in (3, 17, 9, 1)]
    together = generate_batch(model, tokenizer, prompts, SAMPLING)
    alone = [generate_batch(model, tokenizer, [prompt], SAMPLING)[0] for prompt in prompts]
    assert together == alone


def test_an_answer_ends_at_its_end_token(tokenizer):
    model = tiny_model("llama")
    with torch.no_grad():  # whatever comes, the end token is likeliest
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1)
    model.lm_head.bias = torch.nn.Parameter(
        torch.nn.functional.one_hot(torch.tensor(tokenizer.eos_token_id), 259).float()
    )
    assert generate_batch(model, tokenizer, [[5]], SAMPLING) == [Answer("", True)]


def test_unfinished_answers_say_so(tokenizer):
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert generate_batch(model, tokenizer, [[5]], SAMPLING)[0].finished is False


def test_prompts_end_where_the_assistant_speaks(tokenizer):
    turns = [{"role": "user", "content": "Hi"}]
    text = tokenizer.decode(prompt_ids(tokenizer, turns, "So"))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSo"


def test_templates_without_a_system_role_get_its_words_before_the_users(tokenizer):
    strict = copy.deepcopy(tokenizer)
    refuse = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}"
    strict.chat_template = refuse + tokenizer.chat_template
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = strict.decode(prompt_ids(strict, turns))
    assert text == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_resumed_pass_redoes_no_batch_and_gives_the_same(tmp_path):
    prompts = [[index] * (index + 1) for index in range(7)]
    batches = list(enumerate(plan_batches(prompts, 2)))
    calls = []

    def generate(given, number):
        calls.append(number)
        return [Answer(f"{number}:{prompt[0]}", True) for prompt in given]

    first = generate_resumably(prompts, batches, tmp_path / "a", generate)
    next(first), next(first)
    list(generate_resumably(prompts, batches, tmp_path / "a", generate))
    assert calls == [0, 1, 2, 3]
    list(generate_resumably(prompts, batches, tmp_path / "b", generate))
    assert read_answers(tmp_path / "a", 7) == read_answers(tmp_path / "b", 7)


def test_shares_of_two_processes_make_the_whole(tmp_path):
    prompts = [[index] * (index + 1) for index in range(7)]
    batches = list(enumerate(plan_batches(prompts, 2)))

    def generate(given, number):
        return [Answer(str(prompt), True) for prompt in given]

    for rank in range(2):
        list(generate_resumably(prompts, batches[rank::2], tmp_path, generate))
    assert [answer.text for answer in read_answers(tmp_path, 7)] == [str(prompt) for prompt in prompts]


@pytest.mark.parametrize(
    "other", [([[1, 3]], SAMPLING, "m"), ([[1, 2]], Sampling(max_new_tokens=13), "m"), ([[1, 2]], SAMPLING, "n")]
)
def test_the_key_changes_with_whatever_decides_the_answers(other):
    assert generation_key([[1, 2]], SAMPLING, "m") == generation_key([[1, 2]], SAMPLING, "m")
    assert generation_key([[1, 2]], SAMPLING, "m") != generation_key(*other)


def test_sampling_with_a_seed_repeats(tokenizer):
    model, warm = tiny_model("llama"), Sampling(max_new_tokens=12, temperature=1.0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(generate_batch(model, tokenizer, [[5, 6]], warm))
    assert drawn[0] == drawn[1] != drawn[2]
