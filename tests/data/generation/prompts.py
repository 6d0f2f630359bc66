"""What the tests of generation share: prompts, a teacher that counts, and answers by transformers' own generate."""

import torch
from transformers import GenerationConfig

from tests.conftest import tiny_model
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Answer
from trl_prune.data.teacher import LazyTeacher


def prompts_of(lengths, **changes):
    """Return prompts of random-looking ids."""
    ids = ([(position * 11 + length) % 250 for position in range(length)] for length in lengths)
    return [Prompt(row, [{"role": "user", "content": f"prompt {len(row)}"}], **changes) for row in ids]


def conversations(tokenizer, questions, prefill=""):
    """Return rendered conversations."""
    messages = [[{"role": "user", "content": question}] for question in questions]
    return [Prompt(prompt_ids(tokenizer, message, prefill), message, prefill) for message in messages]


def tiny_teacher(tokenizer, model=None, loads=None, **changes):
    """Return a teacher with a tiny model; `loads` gets an entry for each time it is loaded."""

    def load():
        if loads is not None:
            loads.append(1)
        return model if model is not None else tiny_model("llama")

    return LazyTeacher(load, tokenizer, "tiny", **changes)


def likely_to_end(family="llama", seed=0):
    """Return a tiny model whose answers end at different lengths, because many tokens end them."""
    model = tiny_model(family, seed)
    model.generation_config.eos_token_id = [model.config.eos_token_id, *range(40, 60)]
    return model


def generated_alone(model, tokenizer, ids, max_new_tokens):
    """Return an answer by transformers' greedy generate, without padding."""
    inputs = torch.tensor([ids])
    ends = {tokenizer.eos_token_id, *_as_list(model.generation_config.eos_token_id)}
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=0
    )
    output = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
    new = output[0, len(ids) :].tolist()
    finished = new[-1] in ends
    return Answer(tokenizer.decode(new[:-1] if finished else new, skip_special_tokens=True), finished)


def _as_list(value):
    return value if isinstance(value, list) else [value]


def all_answers(engine, prompts, sampling):
    """Return an engine's answers in the order of the prompts, and the sizes of its groups."""
    found, sizes = {}, []
    for group in engine.generate(prompts, sampling):
        assert not found.keys() & group.keys()
        found |= group
        sizes.append(len(group))
    return [found[index] for index in range(len(prompts))], sizes
