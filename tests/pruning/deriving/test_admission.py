"""Rows that are derived: equal to the recorded ones and proven by running tiny models, by default of a sample."""

import pytest
from transformers import AutoConfig

from tests.families import distinct_rows
from trl_prune.errors import InputError
from trl_prune.pruning.deriving.admission import admit, derive_and_prove
from trl_prune.pruning.deriving.proof import DEPTH_PLANS, prove_depth, prove_together, prove_width
from trl_prune.pruning.deriving.rows import blocks_prefix, derive_row, parameter_shapes, per_layer_keys
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.deriving.width import width_rows
from trl_prune.pruning.families import AXES, FAMILIES, KV_HEADS, derived, derived_rows, family_of, registered


# A hybrid whose config lists the blocks with attention, a tuple as a block's output, keys shared between blocks.
SAMPLE = ("bamba", "falcon", "gemma3n_text")
# Types whose tiny models are not small, or generate slowly: half a minute each. `record` proves them.
LONG = {"cpmant", "ctrl", "phi4_multimodal", "xlnet"}
PLANS_OF_SAMPLE = DEPTH_PLANS[:4:3]


def sampled(names, sample):
    return [pytest.param(name, marks=() if name in sample else pytest.mark.slow) for name in sorted(names)]


@pytest.mark.parametrize("name", SAMPLE)
def test_pruned_in_depth_equals_dense_with_blocks_skipped(name):
    assert prove_depth(tiny_model(tiny_config(name)), PLANS_OF_SAMPLE).plans


@pytest.mark.slow
@pytest.mark.parametrize("name", ["falcon", "gemma3n_text", "nemotron_h"])
def test_the_record_is_what_is_derived_and_proven_now(name):
    row, proven = derive_and_prove(name)
    assert proven == derived()["proven"][name]
    assert row == family_of(name)


@pytest.mark.parametrize("name", sampled(derived_rows().keys() - LONG, ("gptj", "qwen3_5")))
def test_pruned_along_all_recorded_axes_equals_dense_with_all_of_it_left_out(name):
    keep = prove_together(tiny_model(tiny_config(name)))
    assert keep.keys() >= family_of(name).axes - {KV_HEADS}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_next"])
def test_pruned_in_width_equals_dense_with_units_masked(name):
    with registered(name, derived_rows()[name]):
        failures, _ = prove_width(tiny_model(tiny_config(name)))
    assert failures.keys() <= family_of(name).unsupported.keys()


# Norms of Persimmon's queries and keys are as long as head_dim, which its config does not name: the table says so.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in distinct_rows() if name != "persimmon"])
def test_derivation_finds_what_the_table_says_of_widths(name):
    """The axes of the dimensions agree with the table's, for every axis that can be derived at all."""
    config = tiny_config(name)
    rows = list(width_rows(config, derive_row(config, tiny_model(config), DEPTH_PLANS)))
    shapes, table = parameter_shapes(config), FAMILIES[name]
    assert any(all(_agree(row, table, weight) for weight in shapes) for row in rows)


def _agree(row, table, weight):
    pairs = zip(row.dim_axes(weight), table.dim_axes(weight), strict=True)
    return all(found == expected for found, expected in pairs if set(found) & set(AXES))


@pytest.mark.parametrize("name", sampled(FAMILIES, ("gemma2", "gpt2", "qwen3_moe", "smollm3")))
def test_derivation_finds_the_blocks_and_lists_of_the_table(name):
    config = tiny_config(name)
    derived_row = derive_row(config, tiny_model(config), DEPTH_PLANS)
    row = FAMILIES[name]
    given = tuple(key for key in row.per_layer_keys if getattr(config, key, None) is not None)
    assert (derived_row.blocks_prefix, derived_row.per_layer_keys) == (row.blocks_prefix, tuple(sorted(given)))


def test_every_proven_type_has_a_row_and_no_refused_one_has():
    rows = derived_rows().keys() | FAMILIES.keys()
    assert derived()["proven"].keys() == rows
    assert not derived()["refused"].keys() & rows


def test_a_type_without_a_row_is_refused_unless_it_is_admitted(monkeypatch):
    config = AutoConfig.for_model("mamba")
    rows = {name: row for name, row in derived_rows().items() if name != "mamba"}
    for module in ("families", "deriving.admission"):
        monkeypatch.setattr(f"trl_prune.pruning.{module}.derived_rows", lambda: rows)
    monkeypatch.setattr("trl_prune.pruning.deriving.admission._with_width", lambda *arguments: arguments[-1])
    with pytest.raises(InputError, match="'mamba' cannot be pruned.*trl-prune models"):
        family_of("mamba")
    with registered("mamba", FAMILIES["llama"]):  # removes what `admit` adds
        admit(config)
        assert family_of("mamba").blocks_prefix == "backbone.layers"


def test_a_type_that_cannot_be_admitted_says_why():
    with pytest.raises(InputError, match="'blt' has no row, and one derived now is not found: its tiny config still"):
        admit(AutoConfig.for_model("blt"))


def test_the_prefix_is_the_outermost_list_of_as_many_modules_as_blocks():
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w1.weight" for layer in range(3) for expert in range(3)]
    assert blocks_prefix([*names, "lm_head.weight"], 3) == "model.layers"
    with pytest.raises(InputError, match="do not show one list"):
        blocks_prefix(names, 4)


def test_lists_of_another_length_are_not_per_layer():
    config = tiny_config("falcon_h1")  # has lists of 2 and of 5 multipliers
    assert per_layer_keys(tiny_config("falcon_h1", num_hidden_layers=5)) == per_layer_keys(config) == ()
