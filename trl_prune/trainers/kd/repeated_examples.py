"""Examples that accelerate repeats to fill the last batch of an evaluation, left out so that each counts once."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from trl_prune.losses.positions import MASKED, learned_positions
from trl_prune.losses.targets import HeadTarget, TeacherTarget
from trl_prune.trainers.kd.student_forward import DistillationBatch


# The entry of a flattened batch with the number of tokens of each example.
EXAMPLE_LENGTHS = "example_lengths"


class LengthCollator:
    """A collator of flattened (padding-free) batches that adds the number of tokens of each example.

    One example is one row of the dataset, and of several sequences where it is packed, so that the batch alone does
    not show where an example ends.
    """

    def __init__(self, collator: Callable[[list[Mapping]], dict]):
        self._collator = collator

    def __call__(self, examples: list[Mapping]) -> dict:
        """Return the collator's batch, with `example_lengths`, `(examples,)`."""
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        return self._collator(examples) | {EXAMPLE_LENGTHS: lengths}


def without_repeats(
    batch: DistillationBatch, inputs: dict, lengths: Tensor | None, accelerator: Accelerator
) -> DistillationBatch:
    """Mask the labels of repeated examples in place, and return the batch without their part of the target.

    The repeated examples are the last of a rank's batch. The target is cut here, not before the teacher predicts, so
    that a teacher cache is still compared with the labels that its rows were written with. For a stream,
    accelerate gives no number of repeated examples, and none is left out.

    Args:
        batch: the target of all learned positions, in their order.
        inputs: a rank's batch, one row for each example, or flattened to one row.
        lengths: number of tokens of each example of a flattened batch.
        accelerator: for how many examples of all ranks' last batches are not repeated.
    """
    state, labels = accelerator.gradient_state, inputs["labels"]
    is_padded = "attention_mask" in inputs
    if not state.end_of_dataloader or state.remainder <= 0 or (lengths is None and not is_padded):
        return batch
    num_examples = len(labels) if is_padded else len(lengths)
    num_own = max(state.remainder - accelerator.process_index * num_examples, 0)
    if is_padded:
        labels[num_own:] = MASKED
    else:
        labels[:, int(lengths[:num_own].sum()) :] = MASKED
    return replace(batch, target=_first_positions(batch.target, int(learned_positions(labels).sum())))


def _first_positions(target: TeacherTarget, count: int) -> TeacherTarget:
    if isinstance(target, HeadTarget):
        return replace(target, hidden=target.hidden[:count])
    tail = None if target.tail is None else target.tail[:count]
    return replace(target, ids=target.ids[:count], probs=target.probs[:count], tail=tail)
