"""Oracles: whole logits at once in float64; a model against itself."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from trl_prune.pruning.choosing import effects
from trl_prune.pruning.choosing.effects import MEASURES, final_states, logits_of
from trl_prune.pruning.families import FAMILIES
from trl_prune.pruning.importance.layers import layers_skipped, mean_loss


@torch.inference_mode()
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_heads_logits_are_the_models_own(family):
    model = tiny_model(family)
    wanted = model(**batch()).logits[batch()["attention_mask"].bool()]
    (states,) = final_states(model, [batch()])
    torch.testing.assert_close(logits_of(model, states), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(**batch()).logits[batch()["attention_mask"].bool()], wanted)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "opt", "mixtral"])
@pytest.mark.parametrize("logits_at_a_time", [1, 5 * 259, 2**24])
def test_kl_is_the_divergence_of_whole_logits(monkeypatch, family, logits_at_a_time):
    monkeypatch.setattr(effects, "LOGITS_AT_A_TIME", logits_at_a_time)
    model = tiny_model(family)
    mask = batch()["attention_mask"].bool()
    dense = model(**batch()).logits[mask].double().log_softmax(-1)
    with layers_skipped(model, [1, 2]):
        pruned = model(**batch(), use_cache=False).logits[mask].double().log_softmax(-1)
    wanted = (dense.exp() * (dense - pruned)).sum(-1).mean().item()
    told = MEASURES["kl"](model, [batch(LENGTHS[:1]), batch(LENGTHS[1:], side="left")])
    assert told([1, 2]) == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    assert told([]) == pytest.approx(0, abs=1e-6)


def test_perplexity_is_the_loss_without_the_blocks():
    model = tiny_model("llama")
    loss = MEASURES["perplexity"](model, [batch()])
    assert loss([]) == mean_loss(model, [batch()])
    with layers_skipped(model, [3]):
        wanted = mean_loss(model, [batch()])
    assert loss([3]) == wanted != loss([])
