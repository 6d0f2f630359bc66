"""Skipped blocks and the loss of a model."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.skipped_layers import layers_skipped, mean_loss


@torch.inference_mode()
def test_skipping_changes_the_logits_and_blocks_are_restored():
    model = tiny_model("llama")
    logits = model(**batch()).logits
    with layers_skipped(model, [1]):
        assert not torch.allclose(model(**batch(), use_cache=False).logits, logits)
    assert torch.equal(model(**batch()).logits, logits)


def test_mean_loss_equals_the_loss_of_transformers():
    model, texts = tiny_model("llama"), batch()
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, MASKED)
    assert mean_loss(model, [texts]) == pytest.approx(model(**texts, labels=labels).loss.item(), abs=1e-5)
    one_by_one = mean_loss(model, [batch((length,)) for length in LENGTHS])
    assert one_by_one == pytest.approx(mean_loss(model, [texts]), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("removed", [{0}, {1, 2}])
def test_a_padded_batch_is_generated_with_a_cache_as_without(family, removed):
    model = tiny_model(family, num_hidden_layers=4)
    tokens = torch.tensor([[0, 0, 0, 5, 6], [7, 8, 9, 10, 11]])
    options = {"attention_mask": (tokens > 0).long(), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with layers_skipped(model, removed):
        cached, uncached = (model.generate(tokens, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, uncached)
