"""Oracle: the definition on full logits in float64."""

import pytest
import torch

from trl_prune.losses import paired_logits
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.overlap import overlap_heads
from trl_prune.losses.targets import HeadTarget


N, VOCAB, WIDTH, DRAFT_WIDTH = 37, 53, 8, 12
LABELS = torch.randint(0, VOCAB, (N,), generator=torch.Generator().manual_seed(6))


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def side(width, vocab_size=VOCAB, seed=1, **options):
    return HeadTarget(random(N, width, seed=seed), LMHead(random(vocab_size, width, seed=seed + 1), **options))


@pytest.fixture(autouse=True)
def small_tiles_and_blocks(monkeypatch):
    monkeypatch.setattr(paired_logits, "MIN_ROWS", 5)
    monkeypatch.setitem(paired_logits.TILE_BYTES, "cpu", 0)
    monkeypatch.setitem(paired_logits.BLOCK_BYTES, "cpu", 2 * 4 * VOCAB)


def probabilities(side, temperature):
    return (side.head.map(torch.Tensor.double).logits(side.hidden.double()).double() / temperature).softmax(1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"softcap": 2.0}])
@pytest.mark.parametrize("draft_vocab_size", [VOCAB, VOCAB - 6, VOCAB + 6])
def test_the_overlap_equals_its_definition(temperature, options, draft_vocab_size):
    target, draft = side(WIDTH, **options), side(DRAFT_WIDTH, draft_vocab_size, seed=3)
    p, q = (probabilities(one, temperature) for one in (target, draft))
    shared = min(VOCAB, draft_vocab_size)
    result = overlap_heads(target, draft, LABELS, temperature)
    torch.testing.assert_close(
        result.overlap.double(), torch.minimum(p[:, :shared], q[:, :shared]).sum(1), atol=1e-6, rtol=1e-6
    )
    assert torch.equal(result.agrees, p.argmax(1) == q.argmax(1))
    padded = torch.nn.functional.pad(q, (0, VOCAB))
    for found, wanted in ((result.log_probs, p), (result.draft_log_probs, padded)):
        expected = wanted.gather(1, LABELS[:, None])[:, 0].log()
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_model_overlaps_with_itself_wholly():
    result = overlap_heads(side(WIDTH), side(WIDTH), LABELS)
    torch.testing.assert_close(result.overlap, torch.ones(N), atol=1e-6, rtol=0)
    assert result.agrees.all()
    assert torch.equal(result.log_probs, result.draft_log_probs)


def test_logits_that_are_not_numbers_show():
    draft = side(DRAFT_WIDTH)
    draft.hidden[4] = float("nan")
    result = overlap_heads(side(WIDTH), draft, LABELS)
    assert result.overlap.isnan().nonzero().flatten().tolist() == [4]
    assert result.log_probs.isfinite().all()
    assert result.draft_log_probs.isnan().nonzero().flatten().tolist() == [4]
