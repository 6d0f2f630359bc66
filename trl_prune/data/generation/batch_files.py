"""Batched text generation that can be interrupted and resumed: batches are planned from all prompts, one file each."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import write_json
from trl_prune.data.batches import pad
from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.generation.sampling import Answer, Sampling


__all__ = ["Answer", "Sampling", "prompt_ids"]


def plan_batches(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    """Return batches of prompt indices, sorted by prompt length, longest first."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def generation_key(prompts: list[list[int]], sampling: Sampling, model_fingerprint: str) -> str:
    """Return a hash of everything that determines the answers: prompts, generation settings and model."""
    content = json.dumps([prompts, vars(sampling), model_fingerprint])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def generate_missing_batches(
    prompts: list[list[int]],
    batches: Iterable[tuple[int, list[int]]],
    folder: Path,
    generate: Callable[[list[list[int]], int], list[Answer]],
) -> Iterator[int]:
    """Generate each batch into `folder/batch-*.json` unless its file exists, and yield the batch indices.

    Greedy answers in bf16 depend on which prompts share a batch. Batches are planned from all prompts and an
    incomplete one is generated again in full, so an interrupted run ends with the answers of an uninterrupted one.

    Args:
        prompts: token ids of all prompts.
        batches: index and prompt indices of the batches to generate (one process's share).
        folder: where the files go; its name must change with whatever determines the answers (`generation_key`).
        generate: returns the answers, given a batch's prompts and its index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for batch_index, prompt_indices in batches:
        path = _batch_path(folder, batch_index)
        if not path.is_file():
            answers = generate([prompts[index] for index in prompt_indices], batch_index)
            write_json(path, {str(index): vars(answer) for index, answer in zip(prompt_indices, answers, strict=True)})
        yield batch_index


def read_answers(folder: Path, count: int) -> list[Answer]:
    """Return the answers to all `count` prompts, in the order of the prompts."""
    stored: dict[str, dict] = {}
    for path in folder.glob("batch-*.json"):
        stored |= json.loads(path.read_text())
    return [Answer(**stored[str(index)]) for index in range(count)]


def _batch_path(folder: Path, batch_index: int) -> Path:
    return folder / f"batch-{batch_index:06d}.json"


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Answer]:
    """Return one answer per prompt, generated in one left-padded batch."""
    inputs = {name: tensor.to(model.device) for name, tensor in pad(prompts, tokenizer, side="left").items()}
    options = {"do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        options["temperature"] = sampling.temperature
    else:  # the sampling settings of the checkpoint's generation config would cause a warning under greedy search
        options |= {"temperature": None, "top_p": None, "top_k": None}
    eos_ids = eos_token_ids(model, tokenizer)
    output = model.generate(
        **inputs,
        **options,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(eos_ids),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids),
    )
    completions = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [_answer(tokenizer, ids, eos_ids) for ids in completions]


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer: those of the model's generation config and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(index) for index in [*ids, tokenizer.eos_token_id] if index is not None}


def _answer(tokenizer: PreTrainedTokenizerBase, ids: list[int], eos_ids: set[int]) -> Answer:
    end = next((index for index, token in enumerate(ids) if token in eos_ids), None)
    return Answer(tokenizer.decode(ids[:end], skip_special_tokens=True), end is not None)
