"""What attends to what, how a projection starts, and the term against plain sums."""

import pytest
import torch

from tests.conftest import SIZES, tiny_model
from trl_prune.checkpoints import Provenance
from trl_prune.trainers.intermediate_states import INPUT_NORMS, StatePoint, blocks_of, captured_states
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.hidden_term import PROJECTION, HiddenTerm, attach_projection, attended, hidden_term
from trl_prune.trainers.kd.layer_map import Pairs


def test_padding_neither_sees_nor_is_seen_by_tokens():
    mask = torch.tensor([[0, 1, 1, 1]])
    told = attended({"input_ids": torch.zeros(1, 4), "attention_mask": mask})[0]
    assert told.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]


def test_rows_in_one_sequence_do_not_see_each_other():
    told = attended({"input_ids": torch.zeros(1, 5), "position_ids": torch.tensor([[0, 1, 2, 0, 1]])})[0]
    blocks = torch.block_diag(torch.ones(3, 3).tril(), torch.ones(2, 2).tril()).bool()
    assert torch.equal(told, blocks)


def test_a_projection_puts_known_channels_back_in_their_places():
    student, width = tiny_model("llama"), SIZES["hidden_size"]
    channels = list(range(1, 2 * width, 2))
    attach_projection(student, 2 * width, Provenance({}, "dense", {"hidden_size": channels}), seed=0)
    stream = torch.randn(3, 2 * width)
    back = getattr(student, PROJECTION)(stream[:, channels])
    assert torch.equal(back[:, channels], stream[:, channels])
    assert back.count_nonzero() == 3 * width


def test_a_projection_of_unknown_channels_starts_as_its_seed_says():
    students = [tiny_model("llama") for _ in range(3)]
    for student, seed in zip(students, (0, 0, 1), strict=True):
        attach_projection(student, 48, None, seed)
    one, same, other = (getattr(student, PROJECTION).weight for student in students)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_equal_widths_need_no_projection():
    student = tiny_model("llama")
    attach_projection(student, SIZES["hidden_size"], None, 0)
    assert not hasattr(student, PROJECTION)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_the_term_is_the_sum_over_learned_positions(distance):
    """Positions predict the next token, so the learned label's state is the one before it."""
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    learned = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    point = StatePoint("block", 0)
    term = HiddenTerm(Pairs((point,), (point,)), distance, comparison_norms=(None,))
    told = term.against({point: theirs}, {})({point: ours}, learned)
    rows = [(0, 1), (0, 2), (1, 0)]
    if distance == "cosine":
        each = [1 - torch.nn.functional.cosine_similarity(ours[at], theirs[at], dim=0) for at in rows]
    else:
        each = [(ours[at] - theirs[at]).square().mean() for at in rows]
    assert float(told) == pytest.approx(float(sum(each)), rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_identical_streams_are_at_no_distance_next_to_a_cut(family):
    """The student's next block has another norm than the teacher's; one of them measures both."""
    teacher, student = tiny_model(family), tiny_model(family)
    reader = blocks_of(student)[2]
    norm = next(child for name, child in reader.named_children() if name in INPUT_NORMS)
    with torch.no_grad():
        norm.weight.copy_(4 * torch.rand(norm.weight.shape))
    told = {"hidden_loss": ["embedding", "block"], "layer_map": {1: 1}}
    args = KDConfig("unused", **told, report_to="none", use_cpu=True, bf16=False)
    term = hidden_term(student, teacher, args, None)
    inputs = {"input_ids": torch.arange(24).view(2, 12)}
    with captured_states(teacher, term.pairs.teacher) as theirs, captured_states(student, term.pairs.student) as ours:
        teacher.base_model(**inputs, use_cache=False)
        student.base_model(**inputs, use_cache=False)
    learned = torch.ones(2, 11, dtype=torch.bool)
    assert term.against(theirs, inputs)(ours, learned).item() == pytest.approx(0, abs=1e-4)
    ours[StatePoint("block", 1)] = -ours[StatePoint("block", 1)]
    assert term.against(theirs, inputs)(ours, learned).item() > 1
