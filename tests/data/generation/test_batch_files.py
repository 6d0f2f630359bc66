"""Batched greedy answers equal those of single prompts; a resumed pass equals an uninterrupted one."""

import copy

import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.data.generation.batch_files import (
    Answer,
    Sampling,
    generate_batch,
    generate_missing_batches,
    generation_key,
    plan_batches,
    prompt_ids,
    read_answers,
)


SAMPLING = Sampling(max_new_tokens=12, batch_size=4)


def test_batches_hold_every_prompt_once_sorted_by_length():
    prompts = [[0] * length for length in (3, 9, 1, 9, 4)]
    batches = plan_batches(prompts, 2)
    assert batches == [[1, 3], [4, 0], [2]]
    assert sorted(index for batch in batches for index in batch) == list(range(5))


def test_batched_answers_equal_single_ones(tokenizer):
    model = tiny_model("llama")
    prompts = [[(position * 11 + length) % 250 for position in range(length)] for length in (3, 17, 9, 1)]
    batched = generate_batch(model, tokenizer, prompts, SAMPLING)
    single = [generate_batch(model, tokenizer, [prompt], SAMPLING)[0] for prompt in prompts]
    assert batched == single


def test_an_answer_ends_at_its_eos_token(tokenizer):
    model = tiny_model("llama")
    with torch.no_grad():  # the EOS token is always the likeliest
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1)
    model.lm_head.bias = torch.nn.Parameter(
        torch.nn.functional.one_hot(torch.tensor(tokenizer.eos_token_id), 259).float()
    )
    assert generate_batch(model, tokenizer, [[5]], SAMPLING) == [Answer("", True)]


def test_an_answer_without_eos_token_is_unfinished(tokenizer):
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert generate_batch(model, tokenizer, [[5]], SAMPLING)[0].finished is False


def test_prompts_end_with_generation_prompt_and_prefill(tokenizer):
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.decode(prompt_ids(tokenizer, messages, "So"))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSo"


def test_templates_without_a_system_role_get_the_system_prompt_in_the_user_message(tokenizer):
    strict = copy.deepcopy(tokenizer)
    refuse = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}"
    strict.chat_template = refuse + tokenizer.chat_template
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = strict.decode(prompt_ids(strict, messages))
    assert text == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_resumed_pass_repeats_no_batch_and_gives_the_same_answers(tmp_path):
    prompts = [[index] * (index + 1) for index in range(7)]
    batches = list(enumerate(plan_batches(prompts, 2)))
    generated = []

    def generate(batch_prompts, batch_index):
        generated.append(batch_index)
        return [Answer(f"{batch_index}:{prompt[0]}", True) for prompt in batch_prompts]

    interrupted = generate_missing_batches(prompts, batches, tmp_path / "a", generate)
    next(interrupted), next(interrupted)
    list(generate_missing_batches(prompts, batches, tmp_path / "a", generate))
    assert generated == [0, 1, 2, 3]
    list(generate_missing_batches(prompts, batches, tmp_path / "b", generate))
    assert read_answers(tmp_path / "a", 7) == read_answers(tmp_path / "b", 7)


def test_the_shares_of_two_processes_are_complete(tmp_path):
    prompts = [[index] * (index + 1) for index in range(7)]
    batches = list(enumerate(plan_batches(prompts, 2)))

    def generate(batch_prompts, batch_index):
        return [Answer(str(prompt), True) for prompt in batch_prompts]

    for process_index in range(2):
        list(generate_missing_batches(prompts, batches[process_index::2], tmp_path, generate))
    assert [answer.text for answer in read_answers(tmp_path, 7)] == [str(prompt) for prompt in prompts]


@pytest.mark.parametrize(
    "changed", [([[1, 3]], SAMPLING, "m"), ([[1, 2]], Sampling(max_new_tokens=13), "m"), ([[1, 2]], SAMPLING, "n")]
)
def test_the_key_changes_with_prompts_settings_and_model(changed):
    assert generation_key([[1, 2]], SAMPLING, "m") == generation_key([[1, 2]], SAMPLING, "m")
    assert generation_key([[1, 2]], SAMPLING, "m") != generation_key(*changed)


def test_sampling_with_a_seed_is_reproducible(tokenizer):
    model, sampling = tiny_model("llama"), Sampling(max_new_tokens=12, temperature=1.0)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(generate_batch(model, tokenizer, [[5, 6]], sampling))
    assert answers[0] == answers[1] != answers[2]
