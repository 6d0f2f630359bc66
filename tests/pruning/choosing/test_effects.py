"""Measured effects against full logits in float64, and of a model against itself."""

import math

import pytest
import torch

from tests.conftest import save_tiny, tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from tests.pruning.surgery.loading import ROOT, load_strictly
from trl_prune.losses.positions import COUNTED
from trl_prune.pruning.choosing import effects
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.losses import MeasuredLosses
from trl_prune.pruning.choosing.shared_runs import SharedRuns
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped, mean_loss
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


def loss_without(effect, model, batches, removed):
    return MeasuredLosses(EFFECTS[effect](model, batches))([removed])[0]


@torch.inference_mode()
def logits(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits.double()


def answers(batch, prompt=3):
    """Return a batch in which only what follows a row's first tokens counts."""
    positions = batch["attention_mask"].cumsum(dim=1)
    return batch | {COUNTED: (positions > prompt) & batch["attention_mask"].bool()}


@torch.inference_mode()
@pytest.mark.parametrize("family", family_params())
def test_logits_of_states_are_the_models_own(family):
    model = tiny_model(family)
    expected = model(**batch()).logits
    runs = SharedRuns(model)
    ((_, states),) = runs.final_states(batch(), [()])
    torch.testing.assert_close(runs.logits(states[0]), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(**batch()).logits, expected)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "opt", "mixtral"])
@pytest.mark.parametrize("max_logits", [1, 5 * 259, 2**24])
def test_kl_is_the_divergence_of_full_logits(monkeypatch, family, max_logits):
    monkeypatch.setattr(effects, "MAX_LOGITS", max_logits)
    monkeypatch.setattr(effects, "MAX_HELD_LOGITS", 2 * max_logits)
    model = tiny_model(family)
    mask = batch()["attention_mask"].bool()
    dense = logits(model, batch())[mask].log_softmax(-1)
    with layers_skipped(model, [1, 2]):
        pruned = logits(model, batch())[mask].log_softmax(-1)
    expected = (dense.exp() * (dense - pruned)).sum(-1).mean().item()
    batches = [batch(LENGTHS[:1]), batch(LENGTHS[1:], side="left")]
    assert loss_without("kl", model, batches, (1, 2)) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert loss_without("kl", model, batches, ()) == pytest.approx(0, abs=1e-6)


def test_perplexity_is_the_loss_without_the_blocks():
    model = tiny_model("llama")
    assert loss_without("perplexity", model, [batch()], ()) == pytest.approx(mean_loss(model, [batch()]))
    with layers_skipped(model, [3]):
        expected = mean_loss(model, [batch()])
    assert loss_without("perplexity", model, [batch()], (3,)) == pytest.approx(expected)


@pytest.mark.parametrize("effect", sorted(EFFECTS))
def test_only_positions_that_count_are_compared(effect):
    model, texts = tiny_model("llama"), answers(batch())
    counted, (dense, pruned) = texts[COUNTED], (logits(model, batch()), None)
    with layers_skipped(model, [1]):
        pruned = logits(model, batch())
    log_probs, targets = pruned.log_softmax(-1), dense.log_softmax(-1)
    if effect == "perplexity":
        followed = counted[:, :-1] & batch()["attention_mask"][:, 1:].bool()
        expected = -log_probs[:, :-1].gather(-1, batch()["input_ids"][:, 1:, None])[..., 0][followed].mean()
    elif effect == "kl":
        expected = (targets.exp() * (targets - log_probs)).sum(-1)[counted].mean()
    else:
        expected = (pruned.argmax(-1) != dense.argmax(-1))[counted].double().mean()
    found = loss_without(effect, model, [texts], (1,))
    assert found == pytest.approx(expected.item(), rel=1e-4)
    assert found != pytest.approx(loss_without(effect, model, [batch()], (1,)), rel=1e-5)


def test_agreement_with_the_dense_model_itself_is_whole():
    assert loss_without("agreement", tiny_model("llama"), [batch()], ()) == 0


@pytest.mark.parametrize("removed", [(0, 2)])
def test_the_effect_is_that_of_the_checkpoint_without_the_blocks(tmp_path, removed):
    dense_dir = save_tiny(tmp_path / "dense")
    keep = {LAYERS: [layer for layer in range(4) if layer not in removed]}
    prune_checkpoint(dense_dir, tmp_path / "pruned", keep, ROOT)
    expected = mean_loss(load_strictly(tmp_path / "pruned"), [batch()])
    choices = [(0,), (1,), (2,), (3,), removed, (1, 3)]
    losses = MeasuredLosses(EFFECTS["perplexity"](tiny_model("llama"), [batch()]))(choices)
    assert losses[choices.index(removed)] == pytest.approx(expected, rel=1e-5)
    assert all(map(math.isfinite, losses))
