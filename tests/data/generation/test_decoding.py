"""A batch's answers are those of each prompt alone, by transformers' own generate."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from tests.conftest import tiny_model
from tests.data.generation.prompts import generated_alone, likely_to_end, prompts_of
from tests.families import family_params
from trl_prune.data.generation import row_batch
from trl_prune.data.generation.decoding import SeededSampling, answer_of, decode, end_ids
from trl_prune.data.generation.sampling import Answer


LENGTHS = (3, 17, 9, 1, 30, 22, 14, 8, 5, 12)


def decoded(model, tokenizer, prompts, max_new_tokens):
    ends = end_ids(model.generation_config, tokenizer)
    generated = decode(model, tokenizer, [prompt.ids for prompt in prompts], max_new_tokens)
    return [answer_of(tokenizer, ids, ends) for ids in generated]


# Full attention, windows, learned positions, blocks without positions, mixtures.
FAST = ("gemma2", "gpt2", "llama", "mixtral", "opt", "qwen3_moe", "smollm3")


@pytest.mark.parametrize("family", family_params(fast=FAST))
def test_answers_of_a_batch_equal_those_of_single_prompts(family, tokenizer):
    model, prompts = likely_to_end(family), prompts_of(LENGTHS)
    alone = [generated_alone(model, tokenizer, prompt.ids, 12) for prompt in prompts]
    assert decoded(model, tokenizer, prompts, 12) == alone


@pytest.mark.parametrize("family", family_params(fast=FAST))
def test_common_first_tokens_change_no_answer(family, tokenizer):
    model, prompts = likely_to_end(family), prompts_of(LENGTHS)
    shared = [replace(prompt, ids=[*range(200, 220), *prompt.ids]) for prompt in [*prompts, prompts_of([0])[0]]]
    alone = [generated_alone(model, tokenizer, prompt.ids, 12) for prompt in shared]
    assert decoded(model, tokenizer, shared, 12) == alone


@pytest.mark.parametrize(
    ("family", "expected"), [("llama", [(1, 20), (3, 30), (3, 1)]), ("gemma2", [(3, 50), (3, 1)])]
)
def test_common_first_tokens_are_read_once_but_for_sliding_windows(family, expected, tokenizer):
    model, sizes = tiny_model(family), []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    decode(model, tokenizer, [[*range(200, 220), *prompt.ids] for prompt in prompts_of((3, 30, 9))], 2)
    assert sizes == expected


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_long_prompts_are_read_some_at_a_time(family, tokenizer, monkeypatch):
    monkeypatch.setattr(row_batch, "READ_TOKENS", 70)
    model, prompts = likely_to_end(family), prompts_of(LENGTHS)
    alone = [generated_alone(model, tokenizer, prompt.ids, 12) for prompt in prompts]
    assert decoded(model, tokenizer, prompts, 12) == alone


def test_finished_rows_leave_the_batch(tokenizer):
    model, widths = likely_to_end(), []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    answers = decoded(model, tokenizer, prompts_of(LENGTHS), 40)
    assert len({answer.finished for answer in answers}) == 2
    assert widths[0] == len(LENGTHS)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < len(LENGTHS)


def always(token, **changes):
    """Return a model whose likeliest token is always the same."""
    model = tiny_model("llama", **changes)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1)
    model.lm_head.bias = torch.nn.Parameter(one_hot(torch.tensor(token), 259).float())
    return model


def test_an_answer_ends_at_its_eos_token(tokenizer):
    model = always(tokenizer.eos_token_id)
    assert decoded(model, tokenizer, prompts_of([1]), 12) == [Answer("", True)]


@pytest.mark.parametrize("configured", [7, [6, 7]])
def test_the_eos_tokens_of_the_generation_config_end_an_answer_too(tokenizer, configured):
    model = always(7)
    model.generation_config.eos_token_id = configured
    assert decoded(model, tokenizer, prompts_of([1]), 12) == [Answer("", True)]
    assert end_ids(model.generation_config, tokenizer) == {tokenizer.eos_token_id, *([7, 6][: 1 + (configured != 7)])}


def test_an_answer_without_eos_token_is_unfinished(tokenizer):
    assert decoded(always(7), tokenizer, prompts_of([1]), 5) == [Answer(tokenizer.decode([7] * 5), False)]


def test_sampling_settings_and_penalties_of_the_checkpoint_are_not_applied(tokenizer):
    model = always(7)
    model.generation_config.update(do_sample=True, temperature=5.0, top_k=3, repetition_penalty=100.0)
    assert decode(model, tokenizer, [[7, 7]], 5) == [[7] * 5]


def test_a_tokenizer_without_padding_token_serves(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    model, prompts = likely_to_end(), prompts_of(LENGTHS)
    assert decoded(model, bare, prompts, 12) == decoded(model, tokenizer, prompts, 12)


def test_seeded_tokens_have_the_distribution_of_the_softmax():
    logits, count = torch.tensor([1.0, 0.0, -1.0, 2.0]), 20_000
    choose = SeededSampling(range(count), temperature=0.5)
    tokens = choose(logits.expand(count, 4), range(count))
    shares = torch.bincount(tokens, minlength=4) / count
    torch.testing.assert_close(shares, (logits / 0.5).softmax(-1), atol=0.015, rtol=0)


def test_a_rows_tokens_do_not_depend_on_the_other_rows():
    torch.manual_seed(0)
    steps = torch.randn(5, 3, 50)
    together, alone = SeededSampling([4, 5, 6], 1.0), SeededSampling([5], 1.0)
    for step, logits in enumerate(steps):
        rows = [0, 1, 2] if step < 3 else [1, 2]  # the first row leaves
        tokens = together(logits[rows], rows)
        assert tokens[rows.index(1)] == alone(logits[[1]], [0])[0]
