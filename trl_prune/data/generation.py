"""Batched text generation that can stop and go on: batches are planned from all prompts, each is one file."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2.exceptions import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import write_json
from trl_prune.data.batches import pad
from trl_prune.data.formats import Message


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_new_tokens: the longest answer.
        batch_size: prompts generated together.
        temperature: 0 is greedy.
        seed: seeds each batch's draw together with the batch's number, so that a resumed run draws the same.
    """

    max_new_tokens: int = 256
    batch_size: int = 32
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """A generated text and whether it ended by itself."""

    text: str
    finished: bool


def prompt_ids(tokenizer: PreTrainedTokenizerBase, turns: list[Message], prefill: str = "") -> list[int]:
    """Return the token ids of a conversation up to where the assistant speaks, and its first words if given."""
    if tokenizer.chat_template is None:
        text = "\n\n".join(turn["content"] for turn in turns) + "\n"
        return tokenizer(text + prefill)["input_ids"]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError:  # templates such as Gemma's know no system role
        text = tokenizer.apply_chat_template(system_folded(turns), tokenize=False, add_generation_prompt=True)
    return tokenizer(text + prefill, add_special_tokens=False)["input_ids"]


def system_folded(turns: list[Message]) -> list[Message]:
    """Return the turns with the system's words at the head of the first user's turn."""
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    talk = [turn for turn in turns if turn["role"] != "system"]
    return [talk[0] | {"content": "\n\n".join([*systems, talk[0]["content"]])}, *talk[1:]]


def plan_batches(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    """Return batches of prompt indices, prompts of like length together, longest first."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def generation_key(prompts: list[list[int]], sampling: Sampling, model_fingerprint: str) -> str:
    """Return a hash of all that decides the answers: prompts, sampling and model."""
    told = json.dumps([prompts, vars(sampling), model_fingerprint])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def generate_resumably(
    prompts: list[list[int]],
    batches: Iterable[tuple[int, list[int]]],
    folder: Path,
    generate: Callable[[list[list[int]], int], list[Answer]],
) -> Iterator[int]:
    """Generate batch after batch into `folder/batch-*.json`, leaving those that are there, and yield their numbers.

    Greedy answers in bf16 depend on which prompts share a batch; as batches are planned from all prompts and redone
    whole, a broken run ends with the answers of an unbroken one.

    Args:
        prompts: token ids of all prompts.
        batches: the batch numbers and prompt indices to see to here (one process's share).
        folder: where the files go; its name must change with whatever decides the answers (`generation_key`).
        generate: prompts and batch number to answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, indices in batches:
        path = _batch_file(folder, number)
        if not path.is_file():
            answers = generate([prompts[index] for index in indices], number)
            write_json(path, {str(index): vars(answer) for index, answer in zip(indices, answers, strict=True)})
        yield number


def read_answers(folder: Path, count: int) -> list[Answer]:
    """Return the answers of all batches, in the prompts' order."""
    stored: dict[str, dict] = {}
    for path in folder.glob("batch-*.json"):
        stored |= json.loads(path.read_text())
    return [Answer(**stored[str(index)]) for index in range(count)]


def _batch_file(folder: Path, number: int) -> Path:
    return folder / f"batch-{number:06d}.json"


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Answer]:
    """Return one answer for each prompt, generated together with left padding."""
    inputs = {name: tensor.to(model.device) for name, tensor in pad(prompts, tokenizer, side="left").items()}
    drawn = {"do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        drawn["temperature"] = sampling.temperature
    else:  # a checkpoint's own sampling settings would only warn under greedy search
        drawn |= {"temperature": None, "top_p": None, "top_k": None}
    ends = end_tokens(model, tokenizer)
    output = model.generate(
        **inputs,
        **drawn,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends),
    )
    new = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [_answer(tokenizer, ids, ends) for ids in new]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer, by the model's generation config and by the tokenizer."""
    told = model.generation_config.eos_token_id
    ids = told if isinstance(told, list) else [told]
    return {int(index) for index in [*ids, tokenizer.eos_token_id] if index is not None}


def _answer(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: set[int]) -> Answer:
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    return Answer(tokenizer.decode(ids[:end], skip_special_tokens=True), end is not None)
