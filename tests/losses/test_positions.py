import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.loss.loss_utils import ForCausalLMLoss

from trl_prune.losses.positions import MASKED, learned_positions


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_learned_positions_are_those_that_transformers_loss_counts(has_label):
    labels = torch.tensor([[3 if learned else MASKED for learned in has_label]])
    logits = torch.zeros(1, len(has_label), 8)
    total = ForCausalLMLoss(logits, labels, vocab_size=8, num_items_in_batch=torch.tensor(1))
    mask = learned_positions(labels)
    assert mask.shape == (1, len(has_label) - 1)
    torch.testing.assert_close(total, mask.sum() * torch.log(torch.tensor(8.0)))
