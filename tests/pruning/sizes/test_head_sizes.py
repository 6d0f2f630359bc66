"""Where head_dim stops being hidden_size / heads, against the configs that surgery writes."""

import itertools

import pytest

from tests.conftest import tiny_config
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.head_sizes import nearest_dividing_sizes, refusing_loaders
from trl_prune.pruning.sizes.shapes import complete_sizes, first_units
from trl_prune.pruning.surgery.cut import Cut, changed_config


GRID = list(itertools.product([8, 16, 24, 32], [1, 2, 3, 4], [1, 2]))


def cut_config(config, sizes):
    keep = first_units(sizes, Costs.of(config))
    return changed_config(config, Cut.of(config, keep).config_changes())


def test_a_loader_refuses_where_the_cut_config_has_another_head_dim():
    config = tiny_config("llama")
    costs, refused = Costs.of(config), 0
    for hidden, heads, groups in GRID:
        if sizes := complete_sizes({HIDDEN: hidden, HEADS: heads, KV_HEADS: groups}, costs):
            cut = cut_config(config, sizes)
            differs = cut.head_dim != cut.hidden_size / cut.num_attention_heads
            assert refusing_loaders(sizes, costs) == ["CTranslate2"] * differs
            refused += differs
    assert refused


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("llama", {LAYERS: 2, NEURONS: 16}),
        ("qwen3", {HIDDEN: 16}),  # its loader reads head_dim
        ("llama", {HIDDEN: 16, HEADS: 2, KV_HEADS: 1}),
        ("gpt2", {HIDDEN: 16, HEADS: 2}),  # the format ties the two
    ],
)
def test_other_cuts_are_taken(family, kept):
    assert refusing_loaders(kept, Costs.of(tiny_config(family))) == []


def test_a_dense_model_that_is_refused_itself_is_not_the_cuts_fault():
    assert refusing_loaders({HIDDEN: 16}, Costs.of(tiny_config("llama", head_dim=16))) == []


def test_the_nearest_sizes_are_the_best_of_all_that_can_be_written():
    config = tiny_config("llama")
    costs, axes = Costs.of(config), (HIDDEN, HEADS, KV_HEADS)
    points = [dict(zip(axes, point, strict=True)) for point in GRID]
    written = [sizes for sizes in points if complete_sizes(sizes, costs) and sizes[HIDDEN] == 8 * sizes[HEADS]]
    for kept in points:
        smaller = [sizes for sizes in written if all(sizes[axis] <= kept[axis] for axis in axes)]
        distances = [sum(abs(sizes[axis] - kept[axis]) / costs.sizes[axis] for axis in axes) for sizes in smaller]
        found = nearest_dividing_sizes(kept, costs)
        assert found in smaller
        assert distances[smaller.index(found)] == pytest.approx(min(distances))
        changed = cut_config(config, costs.sizes | found)
        assert changed.head_dim == changed.hidden_size // changed.num_attention_heads


def test_nothing_is_offered_below_one_head():
    assert nearest_dividing_sizes({HIDDEN: 4}, Costs.of(tiny_config("llama"))) is None
