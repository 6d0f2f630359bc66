"""Measured effects against full logits in float64, and of a model against itself."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from trl_prune.pruning.choosing import effects
from trl_prune.pruning.choosing.effects import EFFECTS, final_states, logits_of
from trl_prune.pruning.importance.skipped_layers import layers_skipped, mean_loss


@torch.inference_mode()
@pytest.mark.parametrize("family", family_params())
def test_logits_of_states_are_the_models_own(family):
    model = tiny_model(family)
    expected = model(**batch()).logits[batch()["attention_mask"].bool()]
    (states,) = final_states(model, [batch()])
    torch.testing.assert_close(logits_of(model, states), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(**batch()).logits[batch()["attention_mask"].bool()], expected)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "opt", "mixtral"])
@pytest.mark.parametrize("max_logits", [1, 5 * 259, 2**24])
def test_kl_is_the_divergence_of_full_logits(monkeypatch, family, max_logits):
    monkeypatch.setattr(effects, "MAX_LOGITS", max_logits)
    model = tiny_model(family)
    mask = batch()["attention_mask"].bool()
    dense = model(**batch()).logits[mask].double().log_softmax(-1)
    with layers_skipped(model, [1, 2]):
        pruned = model(**batch(), use_cache=False).logits[mask].double().log_softmax(-1)
    expected = (dense.exp() * (dense - pruned)).sum(-1).mean().item()
    loss = EFFECTS["kl"](model, [batch(LENGTHS[:1]), batch(LENGTHS[1:], side="left")])
    assert loss([1, 2]) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert loss([]) == pytest.approx(0, abs=1e-6)


def test_perplexity_is_the_loss_without_the_blocks():
    model = tiny_model("llama")
    loss = EFFECTS["perplexity"](model, [batch()])
    assert loss([]) == mean_loss(model, [batch()])
    with layers_skipped(model, [3]):
        expected = mean_loss(model, [batch()])
    assert loss([3]) == expected != loss([])
