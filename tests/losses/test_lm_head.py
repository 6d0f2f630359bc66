import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.losses.lm_head import lm_head


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 8.0}),
        ("gpt2", {}),
        ("phi", {}),
    ],
)
def test_the_head_computes_the_models_logits(family, changes):
    model = tiny_model(family, **changes)
    tokens = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        states = model.base_model(tokens, use_cache=False).last_hidden_state
        torch.testing.assert_close(lm_head(model).logits(states), model(tokens, use_cache=False).logits.float())
