"""Batches of the student's own continuations, on which the teacher corrects the student's own mistakes.

As in GKD (arXiv 2306.13649): a share `lmbda` of the batches keep their prompts, and their answers are sampled from the
student as it is then.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

from trl_prune.errors import InputError
from trl_prune.evaluation.generation_settings import plain_settings
from trl_prune.losses.positions import MASKED
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.trl_names import unwrap_model_for_generation


# The entry of a batch that says that the student wrote its answers.
ON_POLICY = "on_policy"
# A continuation loops where its last tokens are a unit of at most so many, so many times; what is left of it are two.
LONGEST_UNIT, LOOP_REPEATS, KEPT_REPEATS = 32, 4, 2


@dataclass(frozen=True)
class OnPolicyBatches:
    """Replaces the answers of some batches by the student's own.

    Attributes:
        args: the training's arguments, for the share, lengths and temperature.
        tokenizer: for the padding and end tokens.
        accelerator: unwraps the student.
    """

    args: KDConfig
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator

    def replaced(self, batches: Iterator[dict], student: nn.Module, state: TrainerState) -> Iterator[dict]:
        """Yield the batches of a step, some with the student's continuations.

        Which ones, and the draws, depend on the seed and the step alone: a resumed training has the same ones, and all
        ranks generate together.

        Args:
            batches: padded batches on the student's device.
            student: the student, in whatever wrapper.
            state: the training's state, for the step.
        """
        draws = random.Random(f"{self.args.seed} {state.global_step}")
        for batch in batches:
            if draws.random() < self.args.lmbda:
                seed = draws.getrandbits(32) + self.accelerator.process_index
                batch = self._with_own_answers(batch, student, self.length(state), seed)
            yield batch

    def length(self, state: TrainerState) -> int:
        """Return the greatest number of new tokens at a step: it grows linearly over the training."""
        longest = self.args.max_completion_length
        shortest = min(self.args.min_completion_length or longest, longest)
        done = state.global_step / max(state.max_steps - 1, 1)
        return round(shortest + (longest - shortest) * min(done, 1))

    def _with_own_answers(self, batch: dict, student: nn.Module, length: int, seed: int) -> dict:
        prompts = _prompts(batch)
        answers = self.continuations(student, prompts, length, seed)
        pairs = list(zip(prompts, answers, strict=True))
        ids = [torch.cat(pair) for pair in pairs]
        labels = [torch.cat([torch.full_like(prompt, MASKED), answer]) for prompt, answer in pairs]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self._pad),
            "labels": pad_sequence(labels, batch_first=True, padding_value=MASKED),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            ON_POLICY: True,
        }

    @property
    def _pad(self) -> int:
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return end if pad is None else pad

    def continuations(self, student: nn.Module, prompts: list[Tensor], length: int, seed: int) -> list[Tensor]:
        """Return the student's continuation of each prompt, with its end token, cut where it loops.

        Args:
            student: the student, in whatever wrapper.
            prompts: ids of each prompt, `(tokens,)`.
            length: the greatest number of new tokens.
            seed: of the draws; without influence at `generation_temperature=0`.
        """
        ids = pad_sequence(prompts, batch_first=True, padding_value=self._pad, padding_side="left")
        mask = pad_sequence([torch.ones_like(one) for one in prompts], batch_first=True, padding_side="left")
        temperature = self.args.generation_temperature
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        settings = sampling | {"max_new_tokens": length, "top_k": 0, "top_p": 1.0, "use_cache": True}
        was_training = student.training
        with torch.random.fork_rng(), self._unwrapped(student) as model:
            torch.manual_seed(seed)
            model.eval()
            written = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=self._pad, **settings)
            ends = _end_ids(model.generation_config.eos_token_id, self.tokenizer.eos_token_id)
        student.train(was_training)
        return [_without_loop(_to_end(row, ends)) for row in written[:, ids.shape[1] :]]

    @contextmanager
    def _unwrapped(self, student: nn.Module) -> Iterator[PreTrainedModel]:
        """Yield the student as it generates: whole, and without sampling settings of its checkpoint."""
        checkpointing = self.args.gradient_checkpointing_kwargs
        with (
            torch.no_grad(),
            self.accelerator.autocast(),
            unwrap_model_for_generation(
                student, self.accelerator, gradient_checkpointing_kwargs=checkpointing
            ) as model,
            plain_settings(model.get_base_model() if is_peft_model(model) else model),
        ):
            yield model


def _prompts(batch: dict) -> list[Tensor]:
    """Return the ids of each row before its first learned token, without padding."""
    starts = (batch["labels"] != MASKED).int().argmax(1).tolist()
    rows = zip(batch["input_ids"], batch["attention_mask"].bool(), starts, strict=True)
    return [ids[:start][real[:start]] for ids, real, start in rows]


def _end_ids(*given: int | list[int] | None) -> set[int]:
    return {end for ends in given if ends is not None for end in (ends if isinstance(ends, list) else [ends])}


def _to_end(ids: Tensor, ends: set[int]) -> Tensor:
    """Return a continuation with its first end token, without the padding after it."""
    first = next((index for index, token in enumerate(ids.tolist()) if token in ends), len(ids))
    return ids[: first + 1]


def _without_loop(ids: Tensor) -> Tensor:
    """Return a continuation whose end repeats one unit of tokens without most of the repetitions."""
    tokens = ids.tolist()
    for unit in range(1, min(LONGEST_UNIT, len(tokens) // LOOP_REPEATS) + 1):
        repeats = 1
        while tokens[-unit * (repeats + 1) : -unit * repeats] == tokens[-unit:]:
            repeats += 1
        if repeats >= LOOP_REPEATS:
            return ids[: len(tokens) - unit * (repeats - KEPT_REPEATS)]
    return ids


def check_on_policy(args: KDConfig, dataset: object) -> None:
    """Check that batches of the student's own answers can be made.

    Args:
        args: the training's arguments.
        dataset: the prepared training rows.

    Raises:
        InputError: there is a teacher cache, rows share a sequence, or a row has no prompt.
    """
    if args.teacher_cache is not None:
        raise InputError(f"lmbda is {args.lmbda:g}, and teacher_cache knows nothing of answers yet to be written")
    if args.packing or args.padding_free:
        raise InputError(
            f"lmbda is {args.lmbda:g}: answers are written row by row; set packing and padding_free to false"
        )
    if isinstance(dataset, Dataset):
        empty = next((row for row, labels in enumerate(dataset["labels"]) if labels and labels[0] != MASKED), None)
        if empty is not None:
            raise InputError(
                f"lmbda is {args.lmbda:g}, and row {empty} of the training dataset has no prompt to continue; wanted: "
                "prompt and completion, or messages"
            )
