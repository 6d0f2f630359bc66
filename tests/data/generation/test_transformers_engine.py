"""Both ways of generating give the answers of single prompts, each row samples by itself, and memory may run out."""

import logging
from dataclasses import replace

import pytest
import torch

from tests.conftest import tiny_model
from tests.data.generation.prompts import all_answers, generated_alone, likely_to_end, prompts_of, tiny_teacher
from trl_prune.data.generation import transformers_engine
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.transformers_engine import TransformersEngine, generate_batch
from trl_prune.errors import InputError


PROMPTS = prompts_of((3, 17, 9, 1, 30, 22, 14))
SAMPLING = Sampling(max_new_tokens=12, batch_size=3)
SAMPLED = replace(SAMPLING, temperature=1.0)


@pytest.mark.parametrize(
    ("continuous", "options"), [(None, None), (True, None), (True, {"num_blocks": 8, "max_batch_tokens": 64})]
)
def test_answers_are_those_of_single_prompts(tokenizer, continuous, options):
    model = likely_to_end()
    alone = [generated_alone(model, tokenizer, prompt.ids, 12) for prompt in PROMPTS]
    engine = TransformersEngine(tiny_teacher(tokenizer, model), continuous, options)
    answers, sizes = all_answers(engine, PROMPTS, SAMPLING)
    assert answers == alone
    assert sizes == [3, 3, 1]


def test_continuous_batching_leaves_the_model_as_it_was(tokenizer):
    model = likely_to_end()
    before = model.config._attn_implementation, model.generation_config.to_dict()
    all_answers(TransformersEngine(tiny_teacher(tokenizer, model), continuous=True), PROMPTS, SAMPLING)
    assert (model.config._attn_implementation, model.generation_config.to_dict()) == before


def test_a_failure_of_continuous_batching_is_raised_and_its_thread_ends(tokenizer, monkeypatch):
    import threading

    model, threads = likely_to_end(), threading.active_count()
    engine = TransformersEngine(tiny_teacher(tokenizer, model), continuous=True)
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: hidden.unknown)
    with pytest.raises((RuntimeError, AttributeError), match=r"continuous batching|unknown"):
        all_answers(engine, PROMPTS, SAMPLING)
    assert threading.active_count() == threads


def test_continuous_batching_of_samples_is_refused(tokenizer):
    engine = TransformersEngine(tiny_teacher(tokenizer), continuous=True)
    with pytest.raises(InputError, match=r"at temperature 1\.0; it is for temperature 0"):
        all_answers(engine, PROMPTS, SAMPLED)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_samples_do_not_depend_on_their_batch(tokenizer, batch_size):
    engine = TransformersEngine(tiny_teacher(tokenizer))
    expected, _ = all_answers(engine, PROMPTS, SAMPLED)
    answers, _ = all_answers(engine, PROMPTS[::-1], replace(SAMPLED, batch_size=batch_size))
    assert answers[::-1] == expected


def test_samples_change_with_seed_and_sample(tokenizer):
    engine = TransformersEngine(tiny_teacher(tokenizer))
    prompts = [replace(PROMPTS[0], sample=sample) for sample in range(3)]
    answers, _ = all_answers(engine, prompts, SAMPLED)
    reseeded, _ = all_answers(engine, prompts, replace(SAMPLED, seed=1))
    assert len({answer.text for answer in answers + reseeded}) == 6


def test_the_model_is_loaded_for_the_first_answer_and_again_after_closing(tokenizer):
    loads = []
    engine = TransformersEngine(tiny_teacher(tokenizer, loads=loads))
    all_answers(engine, [], SAMPLING)
    assert loads == []
    all_answers(engine, PROMPTS, SAMPLING)
    all_answers(engine, PROMPTS, SAMPLING)
    assert len(loads) == 1
    engine.close()
    all_answers(engine, PROMPTS, SAMPLING)
    assert len(loads) == 2


def test_batches_are_halved_when_memory_runs_out_with_one_warning(tokenizer, monkeypatch, caplog):
    decode = transformers_engine.decode

    def decode_two(model, tokenizer, prompts, *args):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return decode(model, tokenizer, prompts, *args)

    engine = TransformersEngine(tiny_teacher(tokenizer))
    expected, _ = all_answers(engine, PROMPTS, SAMPLING)
    monkeypatch.setattr(transformers_engine, "decode", decode_two)
    with caplog.at_level(logging.WARNING):
        answers, sizes = all_answers(engine, PROMPTS, replace(SAMPLING, batch_size=7))
    assert answers == expected
    assert sizes == [2, 2, 2, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "7 prompts a batch do not fit into memory; going on with fewer"
    ]


def test_one_prompt_that_does_not_fit_is_an_error(tokenizer, monkeypatch):
    def decode_nothing(*args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(transformers_engine, "decode", decode_nothing)
    with pytest.raises(torch.OutOfMemoryError):
        all_answers(TransformersEngine(tiny_teacher(tokenizer)), PROMPTS, SAMPLING)


def test_one_batch_of_a_loaded_model(tokenizer):
    model = tiny_model("llama")
    alone = [generated_alone(model, tokenizer, prompt.ids, 12) for prompt in PROMPTS]
    assert generate_batch(model, tokenizer, [prompt.ids for prompt in PROMPTS], SAMPLING) == alone
