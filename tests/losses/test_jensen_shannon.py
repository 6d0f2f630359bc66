"""Oracles: the definition in float64, and scipy's Jensen-Shannon distance, the square root of the divergence."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from trl_prune.losses import paired_logits as module
from trl_prune.losses.jensen_shannon import compare_heads, jensen_shannon
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget


N, VOCAB, WIDTH, OTHER_WIDTH = 37, 53, 8, 12
LABELS = torch.randint(0, VOCAB, (N,), generator=torch.Generator().manual_seed(6))


def random(*shape, seed, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def first(**options):
    return random(N, WIDTH, seed=1), LMHead(random(VOCAB, WIDTH, seed=2), random(VOCAB, seed=3), **options)


def second(vocab_size=VOCAB, **options):
    return HeadTarget(random(N, OTHER_WIDTH, seed=4), LMHead(random(vocab_size, OTHER_WIDTH, seed=5), **options))


@pytest.fixture(autouse=True)
def small_tiles_and_blocks(monkeypatch):
    monkeypatch.setattr(module, "MIN_ROWS", 5)
    monkeypatch.setitem(module.TILE_BYTES, "cpu", 0)
    monkeypatch.setitem(module.BLOCK_BYTES, "cpu", 2 * 4 * VOCAB)


def reference(hidden, head, target, temperature):
    shared = min(len(head.weight), len(target.head.weight))
    logits = (head.map(torch.Tensor.double).logits(hidden.double()), target.head.logits(target.hidden))
    p, q = ((part[:, :shared].double() / temperature).softmax(1).numpy() for part in logits)
    log_probs = logits[0].double().log_softmax(1).gather(1, LABELS[:, None])[:, 0]
    return np.array([jensenshannon(*pair) ** 2 for pair in zip(p, q, strict=True)]), log_probs.numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"softcap": 2.0}])
@pytest.mark.parametrize("vocab_size", [VOCAB, VOCAB - 6, VOCAB + 6])
def test_divergence_and_log_probabilities_equal_their_definitions(temperature, options, vocab_size):
    hidden, head = first(**options)
    target = second(vocab_size)
    divergence, log_probs = reference(hidden, head, target, temperature)
    comparison = compare_heads(hidden, head, LABELS, target, temperature)
    np.testing.assert_allclose(comparison.divergence, divergence, atol=1e-6)
    np.testing.assert_allclose(comparison.log_probs, log_probs, atol=1e-5)


def test_a_model_does_not_diverge_from_itself():
    hidden, head = first()
    assert compare_heads(hidden, head, LABELS, HeadTarget(hidden, head)).divergence.tolist() == [0.0] * N


def test_the_divergence_is_symmetric():
    hidden, head = first()
    target = second()
    other_way = compare_heads(target.hidden, target.head, LABELS, HeadTarget(hidden, head))
    assert torch.equal(compare_heads(hidden, head, LABELS, target).divergence, other_way.divergence)


def test_without_a_target_only_the_log_probabilities_are_computed():
    hidden, head = first()
    comparison = compare_heads(hidden, head, LABELS)
    assert not comparison.divergence.any()
    torch.testing.assert_close(comparison.log_probs, compare_heads(hidden, head, LABELS, second()).log_probs)


def test_no_positions_give_no_values():
    hidden, head = first()
    assert compare_heads(hidden[:0], head, LABELS[:0]).log_probs.shape == (0,)


@pytest.mark.parametrize(("place", "value"), [("hidden", math.nan), ("hidden", math.inf), ("weight", math.nan)])
def test_logits_that_are_not_finite_show_in_the_values(place, value):
    hidden, head = first()
    (hidden if place == "hidden" else head.weight)[3, 0] = value
    comparison = compare_heads(hidden, head, LABELS, second())
    expected = torch.arange(N) == 3 if place == "hidden" else torch.ones(N, dtype=torch.bool)
    for values in comparison:
        assert torch.equal(~values.isfinite(), expected)


@settings(deadline=None)
@given(st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=9), st.integers(0, 1000))
def test_it_stays_between_0_and_log_2_where_probabilities_underflow(logits, seed):
    first_logits = torch.tensor([logits])
    second_logits = first_logits[:, torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))]
    p, q = first_logits.softmax(1), second_logits.softmax(1)
    divergence = float(jensen_shannon(p, q))
    assert 0 <= divergence <= np.float32(math.log(2))
    exact = jensenshannon(p[0].double().numpy(), q[0].double().numpy()) ** 2
    assert divergence == pytest.approx(np.nan_to_num(exact), abs=1e-6)
