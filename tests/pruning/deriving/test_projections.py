"""Which linear layers write heads and which read them, told by the order of a forward pass."""

from trl_prune.pruning.deriving.growth import growths
from trl_prune.pruning.deriving.projections import head_dims, is_transposed, linear_layers_as_run, reads_heads
from trl_prune.pruning.deriving.proof import DEPTH_PLANS
from trl_prune.pruning.deriving.rows import derive_row
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.families import FAMILIES


def grown(name):
    config = tiny_config(name)
    model = tiny_model(config)
    row = derive_row(config, model, DEPTH_PLANS)
    return config, model, row, growths(config, row)[1]


def test_linear_layers_are_listed_in_the_order_of_a_forward_pass():
    names = [
        name.rpartition(".")[2] for name in linear_layers_as_run(tiny_model(tiny_config("gptj"))) if ".h.0." in name
    ]
    assert names == ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"]


def test_dimensions_of_gpt2_are_those_of_the_table():
    config, model, row, growth = grown("gpt2")
    assert is_transposed(model)
    assert not reads_heads(growth, transposed=True)
    dims = head_dims(model, growth, row, config)
    assert dims["transformer.h.3.attn.c_attn.weight"] == ("H", ("A", "A+A+A"))
    assert dims["transformer.h.3.attn.c_proj.weight"] == FAMILIES["gpt2"].dims("h.3.attn.c_proj.weight")
    assert not any("mlp" in name for name in dims)


def test_keys_and_values_that_all_heads_share_are_no_heads():
    config, model, row, growth = grown("falcon")
    dims = head_dims(model, growth, row, config)
    assert dims["transformer.h.0.self_attention.query_key_value.weight"] == ("A+head_dim+head_dim", "H")


def test_heads_that_have_a_size_of_their_own_are_read():
    *_, growth = grown("lfm2")
    assert reads_heads(growth, transposed=False)
