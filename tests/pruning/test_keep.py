"""Plans: what is refused, how heads follow groups, how cuts compose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.keep import axis_sizes, complete_keep, compose_keep, kept_sizes


LLAMA = AutoConfig.for_model(
    "llama", hidden_size=32, num_attention_heads=8, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=48
)


def complete(keep: dict, config=LLAMA) -> dict:
    return complete_keep(keep, config, FAMILIES[config.model_type])


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ({LAYERS: []}, "num_hidden_layers is empty"),
        ({LAYERS: [0, 0]}, "without repeats in 0..2"),
        ({LAYERS: [2, 1]}, "growing indices"),
        ({LAYERS: [-1, 2]}, "0..2"),
        ({LAYERS: [1, 3]}, r"\[1, 3\].*0..2"),
        ({HIDDEN: [0, 32]}, "hidden_size is .*0..31"),
        ({HIDDEN: ["0"]}, "whole numbers"),
        ({"hidden_sizes": [0]}, "axis 'hidden_sizes'; llama has"),
        ({EXPERTS: [[0]] * 3}, "llama has num_hidden_layers"),
        ({NEURONS: [[0, 1]] * 2}, "2 entries; wanted: a list of indices for each of 3 layers"),
        ({NEURONS: [0, 1, 2]}, "a list of indices for each"),
        ({NEURONS: [[0, 1], [0], [0, 1]]}, "keeps 1 to 2 units a layer"),
        ({NEURONS: [[0, 1], [0, 99], [0, 1]]}, r"intermediate_size\[1\] is \[0, 99\]"),
        ({HEADS: [[0, 1, 4]] * 3}, r"2 of group 0, 1 of group 1.*equally many"),
        ({HEADS: [[0, 1]] * 3}, r"2 of group 0, 0 of group 1"),
        ({HIDDEN: list(range(20))}, "multiple of num_attention_heads; 20 is none of 8 .the nearest below: 16"),
        ({HEADS: [[0, 4]] * 3, GROUPS: [[0]] * 3}, "no other group any"),
    ],
)
def test_plans_that_do_not_fit_are_refused(keep, told):
    with pytest.raises(InputError, match=told):
        complete(keep)


def test_groups_take_their_heads_along():
    assert complete({GROUPS: [[1]] * 3})[HEADS] == [[4, 5, 6, 7]] * 3


def test_heads_alone_keep_every_group():
    assert complete({HEADS: [[0, 3, 4, 6]] * 3})[GROUPS] == [[0, 1]] * 3


def test_one_head_a_group_makes_groups_follow_heads():
    config = AutoConfig.for_model("llama", num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=1)
    assert complete({HEADS: [[0, 3]]}, config)[GROUPS] == [[0, 3]]
    assert complete({GROUPS: [[1, 2]]}, config)[HEADS] == [[1, 2]]


def test_a_plan_of_one_axis_keeps_all_layers():
    assert complete({HIDDEN: list(range(24))})[LAYERS] == [0, 1, 2]


def test_experts_left_must_be_as_many_as_a_token_is_routed_to():
    config = tiny_model("mixtral").config
    with pytest.raises(InputError, match="leaves 1 experts a layer, and each token is routed to 2"):
        complete({EXPERTS: [[0]] * 4}, config)


def test_neurons_of_experts_are_refused_with_the_reason():
    with pytest.raises(InputError, match="mixtral cannot be cut along intermediate_size: its neurons sit in experts"):
        complete({NEURONS: [[0]] * 4}, tiny_model("mixtral").config)


def test_heads_and_hidden_go_together_where_head_dim_is_derived():
    config = tiny_model("gpt_neox").config
    with pytest.raises(InputError, match="2 heads need 16 channels, not 32"):
        complete({HEADS: [[0, 2]] * 4}, config)
    whole = complete({HEADS: [[0, 2]] * 4, HIDDEN: list(range(16))}, config)
    assert kept_sizes(whole) == {LAYERS: 4, HEADS: 2, HIDDEN: 16}


def test_families_have_the_axes_their_weights_name():
    assert set(axis_sizes(tiny_model("opt").config, FAMILIES["opt"])) == {LAYERS, HIDDEN, NEURONS, HEADS}
    assert EXPERTS in axis_sizes(tiny_model("qwen3_moe").config, FAMILIES["qwen3_moe"])


@given(st.lists(st.integers(0, 30), unique=True, min_size=1).map(sorted), st.data())
def test_composition_picks_from_what_was_kept(before, data):
    positions = st.lists(st.integers(0, len(before) - 1), unique=True, min_size=1).map(sorted)
    now = data.draw(positions)
    composed = compose_keep({LAYERS: before}, {LAYERS: now}, 31)[LAYERS]
    assert composed == [before[place] for place in now]


def subsets(size: int, least: int) -> st.SearchStrategy:
    return st.lists(st.integers(0, size - 1), unique=True, min_size=least, max_size=least).map(sorted)


@given(st.data())
def test_two_cuts_in_a_row_are_one_cut_of_the_dense_model(data):
    num_layers, neurons = 4, 9
    first = {
        LAYERS: data.draw(subsets(num_layers, 3)),
        NEURONS: [data.draw(subsets(neurons, 6)) for _ in range(num_layers)],
    }
    second = {LAYERS: data.draw(subsets(3, 2)), NEURONS: [data.draw(subsets(6, 4)) for _ in range(3)]}
    composed = compose_keep(first, second, num_layers)
    told = [composed[NEURONS][layer] for layer in composed[LAYERS]]
    step = [first[NEURONS][layer] for layer in first[LAYERS]]
    wanted = [[step[place][index] for index in second[NEURONS][place]] for place in second[LAYERS]]
    assert told == wanted
    assert {len(indices) for indices in composed[NEURONS]} == {4}
