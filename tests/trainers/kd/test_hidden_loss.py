"""Which positions attend to which, and the hidden loss against plain sums."""

import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.intermediate_states import INPUT_NORMS, StatePoint, capture_states
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.hidden_loss import HiddenLoss, attended_positions, make_hidden_loss
from trl_prune.trainers.kd.layer_map import StatePairs


def test_tokens_and_padding_do_not_attend_to_each_other():
    mask = torch.tensor([[0, 1, 1, 1]])
    attended = attended_positions({"input_ids": torch.zeros(1, 4), "attention_mask": mask})[0]
    assert attended.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]


def test_sequences_of_one_row_do_not_attend_to_each_other():
    inputs = {"input_ids": torch.zeros(1, 5), "position_ids": torch.tensor([[0, 1, 2, 0, 1]])}
    blocks = torch.block_diag(torch.ones(3, 3).tril(), torch.ones(2, 2).tril()).bool()
    assert torch.equal(attended_positions(inputs)[0], blocks)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_the_loss_is_the_sum_over_learned_positions(distance):
    """Positions predict the next token, so the state of a learned label is the one before it."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    learned = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    point = StatePoint("block", 0)
    hidden_loss = HiddenLoss(StatePairs((point,), (point,)), distance, comparison_norms=(None,))
    loss = hidden_loss.for_batch({point: teacher}, {})({point: student}, learned)
    positions = [(0, 1), (0, 2), (1, 0)]
    if distance == "cosine":
        distances = [1 - torch.nn.functional.cosine_similarity(student[at], teacher[at], dim=0) for at in positions]
    else:
        distances = [(student[at] - teacher[at]).square().mean() for at in positions]
    assert float(loss) == pytest.approx(float(sum(distances)), rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_equal_states_have_no_loss_before_a_removed_block(family):
    """The student's next block has another norm than the teacher's; one of them is applied to both."""
    teacher, student = tiny_model(family), tiny_model(family)
    next_block = decoder_blocks(student)[2]
    norm = next(child for name, child in next_block.named_children() if name in INPUT_NORMS)
    with torch.no_grad():
        norm.weight.copy_(4 * torch.rand(norm.weight.shape))
    states = {"hidden_loss": ["embedding", "block"], "layer_map": {1: 1}}
    args = KDConfig("unused", **states, report_to="none", use_cpu=True, bf16=False)
    hidden_loss = make_hidden_loss(student, teacher, args, None)
    inputs, pairs = {"input_ids": torch.arange(24).view(2, 12)}, hidden_loss.pairs
    with (
        capture_states(teacher, pairs.teacher) as teacher_states,
        capture_states(student, pairs.student) as student_states,
    ):
        teacher.base_model(**inputs, use_cache=False)
        student.base_model(**inputs, use_cache=False)
    learned = torch.ones(2, 11, dtype=torch.bool)
    assert hidden_loss.for_batch(teacher_states, inputs)(student_states, learned).item() == pytest.approx(0, abs=1e-4)
    student_states[StatePoint("block", 1)] = -student_states[StatePoint("block", 1)]
    assert hidden_loss.for_batch(teacher_states, inputs)(student_states, learned).item() > 1
