"""A tiny target and drafts whose tokens it partly accepts."""

import torch

from tests.conftest import tiny_model


def draft_of(target, blocks=3):
    """Return a draft with the target's first blocks."""
    name = "n_layer" if target.config.model_type == "gpt2" else "num_hidden_layers"
    draft = tiny_model(target.config.model_type, **{name: blocks})
    draft.load_state_dict({name: target.state_dict()[name] for name in draft.state_dict()})
    return draft


def flatter(model, factor=0.3):
    """Return the model with smaller logits, so that sampling has a choice."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(factor)
    return model
