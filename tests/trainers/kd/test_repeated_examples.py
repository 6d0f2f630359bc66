"""Labels of repeated examples are masked, and the target keeps the positions of the others."""

from types import SimpleNamespace

import pytest
import torch

from trl_prune.losses.head_block import Objective
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget
from trl_prune.trainers.kd.repeated_examples import EXAMPLE_LENGTHS, LengthCollator, without_repeats
from trl_prune.trainers.kd.student_forward import DistillationBatch


# Three examples of 4, 5 and 3 tokens; the second is packed of two sequences, of 3 and 2 tokens.
FLATTENED = {
    "labels": [-100, 2, 3, 4, -100, 6, -100, -100, 9, -100, 11, 12],
    "position_ids": [0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1, 2],
}
LENGTHS = [4, 5, 3]
PADDED = [[-100, 2, 3, 4, -100], [-100, 6, -100, -100, 9], [-100, 11, 12, -100, -100]]
LEARNED = [3, 2, 2]


def accelerator(remainder, rank, is_last=True):
    """Return the state of accelerate in a rank's last batch; `remainder` counts the examples of all ranks."""
    state = SimpleNamespace(end_of_dataloader=is_last, remainder=remainder)
    return SimpleNamespace(gradient_state=state, process_index=rank)


def targets():
    count = sum(LEARNED)
    hidden = torch.arange(count)[:, None]
    yield HeadTarget(hidden, LMHead(torch.zeros(4, 1)))
    yield SparseTarget(hidden, hidden.float(), tail=hidden[:, 0].float())
    yield SparseTarget(hidden, hidden.float())


def inputs_of(layout):
    if layout == "padded":
        labels = torch.tensor(PADDED)
        return {"labels": labels, "attention_mask": torch.ones_like(labels)}, None
    return {name: torch.tensor([values]) for name, values in FLATTENED.items()}, torch.tensor(LENGTHS)


@pytest.mark.parametrize("layout", ["padded", "flattened"])
@pytest.mark.parametrize(
    ("remainder", "rank", "num_own"), [(1, 0, 1), (1, 1, 0), (3, 0, 3), (4, 1, 1), (5, 1, 2), (5, 2, 0)]
)
def test_only_a_ranks_own_examples_are_counted(remainder, rank, num_own, layout):
    for target in targets():
        inputs, lengths = inputs_of(layout)
        labels = inputs["labels"].clone()
        batch = without_repeats(DistillationBatch(target, Objective()), inputs, lengths, accelerator(remainder, rank))
        learned = sum(LEARNED[:num_own])
        rows = torch.arange(learned)
        if isinstance(target, HeadTarget):
            assert torch.equal(batch.target.hidden[:, 0], rows)
        else:
            assert torch.equal(batch.target.ids[:, 0], rows)
            assert torch.equal(batch.target.probs[:, 0], rows.float())
            assert (batch.target.tail is None) == (target.tail is None)
            assert batch.target.tail is None or torch.equal(batch.target.tail, rows.float())
        kept = inputs["labels"] != -100
        assert int(kept.sum()) == learned
        assert torch.equal(inputs["labels"][kept], labels[labels != -100][:learned])


@pytest.mark.parametrize(
    "state", [accelerator(1, 0, is_last=False), accelerator(0, 0), accelerator(-1, 0)], ids=["inner", "full", "stream"]
)
@pytest.mark.parametrize("layout", ["padded", "flattened"])
def test_batches_without_repeats_are_left_as_they_are(state, layout):
    inputs, lengths = inputs_of(layout)
    labels, batch = inputs["labels"].clone(), DistillationBatch(next(targets()), Objective())
    assert without_repeats(batch, inputs, lengths, state) is batch
    assert torch.equal(inputs["labels"], labels)


def test_the_collator_adds_the_length_of_each_example():
    examples = [{"input_ids": [1] * length, "seq_lengths": [length]} for length in LENGTHS]
    batch = LengthCollator(lambda rows: {"input_ids": len(rows)})(examples)
    assert batch["input_ids"] == 3
    assert batch[EXAMPLE_LENGTHS].tolist() == LENGTHS
