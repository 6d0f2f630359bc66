"""Pruning plans: errors, heads derived from KV heads, composition of cuts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS, derived_rows
from trl_prune.pruning.keep import axis_sizes, complete_keep, compose_keep, kept_sizes
from trl_prune.pruning.surgery.cut import meta_model


LLAMA = AutoConfig.for_model(
    "llama", hidden_size=32, num_attention_heads=8, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=48
)


def complete(keep: dict, config=LLAMA) -> dict:
    return complete_keep(keep, config, FAMILIES[config.model_type])


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({LAYERS: []}, "num_hidden_layers is empty"),
        ({LAYERS: [0, 0]}, "without repeats in 0..2"),
        ({LAYERS: [2, 1]}, "increasing indices"),
        ({LAYERS: [-1, 2]}, "0..2"),
        ({LAYERS: [1, 3]}, r"\[1, 3\].*0..2"),
        ({HIDDEN: [0, 32]}, "hidden_size is .*0..31"),
        ({HIDDEN: ["0"]}, "a list of integers"),
        ({"hidden_sizes": [0]}, "'hidden_sizes' is not an axis of llama; allowed: num_hidden_layers"),
        ({EXPERTS: [[0]] * 3}, "'num_experts' is not an axis of llama"),
        ({NEURONS: [[0, 1]] * 2}, "2 entries; wanted: a list of indices for each of 3 layers"),
        ({NEURONS: [0, 1, 2]}, "a list of indices for each"),
        ({NEURONS: [[0, 1], [0], [0, 1]]}, "keeps 1 to 2 units per layer"),
        ({NEURONS: [[0, 1], [0, 99], [0, 1]]}, r"intermediate_size\[1\] is \[0, 99\]"),
        ({HEADS: [[0, 1, 4]] * 3}, r"2 of group 0, 1 of group 1.*the same number of query heads"),
        ({HEADS: [[0, 1]] * 3}, r"2 of group 0, 0 of group 1"),
        (
            {HIDDEN: list(range(20))},
            "multiple of num_attention_heads; 20 is not a multiple of 8 .the nearest below: 16",
        ),
        ({HEADS: [[0, 4]] * 3, KV_HEADS: [[0]] * 3}, "every other group none"),
    ],
)
def test_plans_that_do_not_fit_the_model_raise(keep, message):
    with pytest.raises(InputError, match=message):
        complete(keep)


def test_kv_heads_determine_the_query_heads():
    assert complete({KV_HEADS: [[1]] * 3})[HEADS] == [[4, 5, 6, 7]] * 3


def test_cutting_query_heads_keeps_every_kv_head():
    assert complete({HEADS: [[0, 3, 4, 6]] * 3})[KV_HEADS] == [[0, 1]] * 3


def test_multi_head_attention_keeps_the_same_heads_and_kv_heads():
    config = AutoConfig.for_model("llama", num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=1)
    assert complete({HEADS: [[0, 3]]}, config)[KV_HEADS] == [[0, 3]]
    assert complete({KV_HEADS: [[1, 2]]}, config)[HEADS] == [[1, 2]]


def test_a_plan_without_layers_keeps_all_layers():
    assert complete({HIDDEN: list(range(24))})[LAYERS] == [0, 1, 2]


def test_at_least_as_many_experts_as_a_token_is_routed_to_must_be_kept():
    config = tiny_model("mixtral").config
    with pytest.raises(InputError, match="keeps 1 experts per layer, but each token is routed to 2"):
        complete({EXPERTS: [[0]] * 4}, config)


def test_error_on_neurons_of_experts_gives_the_reason():
    with pytest.raises(
        InputError, match="mixtral cannot be cut along intermediate_size: its neurons are inside experts"
    ):
        complete({NEURONS: [[0]] * 4}, tiny_model("mixtral").config)


def test_heads_and_hidden_are_cut_together_if_head_dim_is_derived():
    config = tiny_model("gpt_neox").config
    with pytest.raises(InputError, match="2 heads need 16 channels, not 32"):
        complete({HEADS: [[0, 2]] * 4}, config)
    keep = complete({HEADS: [[0, 2]] * 4, HIDDEN: list(range(16))}, config)
    assert kept_sizes(keep) == {LAYERS: 4, HEADS: 2, HIDDEN: 16}


def test_families_have_the_axes_of_their_weights():
    assert set(axis_sizes(tiny_model("opt").config, FAMILIES["opt"])) == {LAYERS, HIDDEN, NEURONS, HEADS}
    assert EXPERTS in axis_sizes(tiny_model("qwen3_moe").config, FAMILIES["qwen3_moe"])


@given(st.lists(st.integers(0, 30), unique=True, min_size=1).map(sorted), st.data())
def test_composed_layers_index_into_the_first_cut(first, data):
    indices = st.lists(st.integers(0, len(first) - 1), unique=True, min_size=1).map(sorted)
    second = data.draw(indices)
    composed = compose_keep({LAYERS: first}, {LAYERS: second}, 31)[LAYERS]
    assert composed == [first[index] for index in second]


def subsets(size: int, count: int) -> st.SearchStrategy:
    return st.lists(st.integers(0, size - 1), unique=True, min_size=count, max_size=count).map(sorted)


@given(st.data())
def test_two_cuts_in_a_row_are_one_cut_of_the_dense_model(data):
    num_layers, neurons = 4, 9
    first = {
        LAYERS: data.draw(subsets(num_layers, 3)),
        NEURONS: [data.draw(subsets(neurons, 6)) for _ in range(num_layers)],
    }
    second = {LAYERS: data.draw(subsets(3, 2)), NEURONS: [data.draw(subsets(6, 4)) for _ in range(3)]}
    composed = compose_keep(first, second, num_layers)
    after_first = [first[NEURONS][layer] for layer in first[LAYERS]]
    after_second = [[after_first[layer][index] for index in second[NEURONS][layer]] for layer in second[LAYERS]]
    assert [composed[NEURONS][layer] for layer in composed[LAYERS]] == after_second
    assert {len(indices) for indices in composed[NEURONS]} == {4}


def test_the_neurons_of_lfm2_are_as_many_as_its_weights_have():
    sizes = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
    }
    for multiplier, neurons in ((1.0, 100), (1.3, 1000)):
        config = AutoConfig.for_model(
            "lfm2", **sizes, intermediate_size=neurons, block_ffn_dim_multiplier=multiplier, block_multiple_of=16
        )
        weights = dict(meta_model(config).named_parameters())
        expected = len(weights["model.layers.0.feed_forward.w1.weight"])
        assert axis_sizes(config, derived_rows()["lfm2"])[NEURONS] == expected


def test_heads_with_slopes_are_not_cut():
    config = AutoConfig.for_model("falcon", hidden_size=32, num_attention_heads=4, num_hidden_layers=2, alibi=True)
    with pytest.raises(InputError, match="falcon with alibi gives each head a slope"):
        complete_keep({HEADS: [[0, 1]] * 2, HIDDEN: list(range(16))}, config, derived_rows()["falcon"])
