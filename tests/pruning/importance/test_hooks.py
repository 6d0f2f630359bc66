"""Hook sites found through the family table, against the modules' names and transformers' hidden states."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import batch
from tests.pruning.masking import unit_modules
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HIDDEN
from trl_prune.pruning.importance.hooks import activation_hooks, decoder_blocks, stream_sites, unit_sites


@pytest.mark.parametrize("family", family_params())
def test_the_table_finds_the_same_modules_as_their_names(family):
    model = tiny_model(family)
    sites = unit_sites(model, FAMILIES[family])
    expected = {axis: modules for axis, modules in unit_modules(model).items() if axis in FAMILIES[family].axes}
    assert {site.key for site in sites} == set(expected)
    for axis, modules in expected.items():
        assert [id(site.module) for site in sites if site.key == axis] == [id(module) for module in modules]
    blocks = len(decoder_blocks(model))
    assert {site.layer for site in sites if site.key == HIDDEN} == set(range(blocks))


def test_a_model_without_a_list_of_blocks_is_refused():
    model = tiny_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(InputError, match="LlamaForCausalLM has no list of 7 decoder blocks"):
        decoder_blocks(model)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_stream_sites_are_the_hidden_states_before_the_final_norm(family):
    model, states = tiny_model(family), []
    with activation_hooks(stream_sites(model), lambda _, activation: states.append(activation)):
        hidden_states = model(**batch((9,)), output_hidden_states=True).hidden_states
    assert len(states) == len(hidden_states)
    assert all(map(torch.equal, states[:-1], hidden_states[:-1]))
    assert not torch.allclose(states[-1], hidden_states[-1])
