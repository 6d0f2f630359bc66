"""Reference: the two models run separately."""

import copy

import pytest
import torch

from tests.conftest import tiny_config, tiny_model
from trl_prune.data.shared_blocks import backbone_states, count_shared_blocks, shared_states
from trl_prune.pruning.importance.hooks import decoder_blocks


FAMILIES = ["llama", "gemma2", "gemma3_text", "qwen2", "qwen3", "gpt2", "opt", "mixtral", "smollm3"]
INPUT_IDS = torch.randint(0, 200, (3, 20), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(INPUT_IDS)
MASK[1, 12:] = 0
INPUTS = {"input_ids": INPUT_IDS, "attention_mask": MASK}


def without_blocks(model, kept):
    """The model with some of its blocks only, by transformers' own classes."""
    config = copy.deepcopy(model.config)
    for key in ("layer_types", "no_rope_layers"):
        if key in config.to_dict():
            setattr(config, key, [getattr(config, key)[block] for block in kept])
    config.num_hidden_layers = len(kept)
    pruned = type(model)(config).eval()
    pruned.load_state_dict(model.state_dict(), strict=False)
    for block, source in zip(decoder_blocks(pruned), kept, strict=True):
        block.load_state_dict(decoder_blocks(model)[source].state_dict())
    return pruned


def layer_types(family):
    alternating = ["sliding_attention", "full_attention"] * 2
    return {"layer_types": alternating} if family == "gemma3_text" else {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kept", "shared"), [([0, 1, 3], 2), ([0, 1], 2), ([0, 1, 2, 3], 4), ([1, 2, 3], 0)])
@torch.inference_mode()
def test_both_states_equal_those_of_the_models_alone_bit_for_bit(family, kept, shared):
    dense = tiny_model(family, **layer_types(family))
    pruned = without_blocks(dense, kept)
    if family in ("gemma3_text", "smollm3") and kept == [0, 1, 3]:
        assert pruned.config.layer_types == [dense.config.layer_types[block] for block in kept]
    assert count_shared_blocks(dense, pruned, decoder_blocks) == shared
    expected = backbone_states(dense, INPUTS), backbone_states(pruned, INPUTS)
    states = shared_states(dense, pruned, INPUTS, shared, decoder_blocks)
    assert all(map(torch.equal, states, expected))
    # and the models are as they were
    assert torch.equal(backbone_states(pruned, INPUTS), expected[1])
    assert torch.equal(backbone_states(dense, INPUTS), expected[0])
    assert shared == len(kept) or not torch.equal(*expected)


def test_shared_blocks_of_the_pruned_model_do_not_run():
    dense = tiny_model("llama")
    pruned = without_blocks(dense, [0, 1, 3])
    ran = []
    for index, block in enumerate(decoder_blocks(pruned)):
        block.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    shared_states(dense, pruned, INPUTS, 2, decoder_blocks)
    assert ran == [2]


def test_an_error_restores_the_blocks_and_their_own_patches():
    dense = tiny_model("llama")
    pruned = without_blocks(dense, [0, 1, 3])
    patched = decoder_blocks(pruned)[1].forward
    decoder_blocks(pruned)[1].forward = patched  # as accelerate does

    def fail(*_):
        raise RuntimeError

    hook = decoder_blocks(pruned)[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        shared_states(dense, pruned, INPUTS, 2, decoder_blocks)
    hook.remove()
    assert "forward" not in vars(decoder_blocks(pruned)[0])
    assert decoder_blocks(pruned)[1].forward is patched
    assert not decoder_blocks(dense)[1]._forward_hooks


def changed(change):
    """A model without its third block, and one more change."""
    pruned = without_blocks(tiny_model("gemma2"), [0, 1, 3])
    with torch.no_grad():
        change(pruned)
    return pruned


def set_config(key, value):
    return lambda model: setattr(model.config, key, value)


CHANGES = {
    "an embedding": (lambda model: model.get_input_embeddings().weight[5, 5].add_(0.1), 0),
    "the final norm": (lambda model: model.model.norm.weight.add_(0.1), 0),
    "the first block": (lambda model: model.model.layers[0].mlp.up_proj.weight[0, 0].add_(0.1), 0),
    "the second block": (lambda model: model.model.layers[1].mlp.up_proj.weight[0, 0].add_(0.1), 1),
    "a block's dtype": (lambda model: model.model.layers[1].double(), 1),
    "a block's device": (lambda model: model.model.layers[1].to("meta"), 1),
    "the dtype": (lambda model: model.bfloat16(), 0),
    "a config key of all blocks": (set_config("sliding_window", 4), 0),
    "the attention": (set_config("_attn_implementation", "sdpa"), 0),
    "the second block's attention type": (set_config("layer_types", ["sliding_attention"] * 3), 1),
    "nothing that matters": (set_config("eos_token_id", 7), 2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_blocks_are_shared_only_up_to_the_first_difference(name):
    change, shared = CHANGES[name]
    assert count_shared_blocks(tiny_model("gemma2"), changed(change), decoder_blocks) == shared


@pytest.mark.parametrize("other", [{"hidden_size": 64}, {"vocab_size": 300}, {"family": "mistral"}])
def test_models_of_other_shapes_or_classes_share_nothing(other):
    pruned = tiny_model(**({"family": "llama"} | other))
    assert count_shared_blocks(tiny_model("llama"), pruned, decoder_blocks) == 0


def test_the_blocks_of_a_truncated_checkpoint_are_shared(tmp_path):
    """As `from_pretrained` loads them, with another path and version in the config."""
    dense = tiny_model("qwen3")
    without_blocks(dense, [0, 1]).save_pretrained(tmp_path)
    pruned = type(dense).from_pretrained(tmp_path).eval()
    assert pruned.config.num_hidden_layers == tiny_config("qwen3").num_hidden_layers - 2
    assert count_shared_blocks(dense, pruned, decoder_blocks) == 2
