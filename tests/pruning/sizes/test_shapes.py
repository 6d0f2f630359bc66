"""Which shapes can be expressed, against what surgery accepts; and which axes follow others."""

import itertools

import pytest

from tests.conftest import tiny_config
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, NEURONS
from trl_prune.pruning.keep import complete_keep
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.shapes import MLP_RATIO, complete_sizes, first_units, heads_per_group


@pytest.mark.parametrize(
    "family", ["llama", "phi", "gpt2", "mixtral", "stablelm", "qwen2_moe", "olmoe", "opt", "cohere"]
)
def test_expressible_is_what_surgery_accepts(family):
    costs = Costs.of(tiny_config(family))
    axes = [axis for axis in (HEADS, KV_HEADS, HIDDEN, EXPERTS) if axis in costs.sizes]
    steps = {HIDDEN: [8, 16, 24, 32], HEADS: [1, 2, 3, 4], KV_HEADS: [1, 2], EXPERTS: [1, 2, 4]}
    for point in itertools.product(*(steps[axis] for axis in axes)):
        choice = dict(zip(axes, point, strict=True))
        assert (complete_sizes(choice, costs) is not None) == accepted(costs.sizes | choice, costs), choice


def accepted(sizes: dict[str, int], costs: Costs) -> bool:
    if sizes[HEADS] % sizes.get(KV_HEADS, 1):
        return False  # no list of heads has that many
    try:
        complete_keep(first_units(sizes, costs), costs.config, costs.family)
    except InputError:
        return False
    return True


def test_axes_left_out_are_derived_from_the_given_ones():
    phi = Costs.of(tiny_config("phi", num_key_value_heads=4))
    assert complete_sizes({HEADS: 2}, phi)[KV_HEADS] == 2
    llama = Costs.of(tiny_config("llama"))
    assert complete_sizes({HEADS: 2}, llama)[KV_HEADS] == 2
    assert complete_sizes({KV_HEADS: 1}, llama)[HEADS] == 2
    gpt2 = Costs.of(tiny_config("gpt2"))
    assert complete_sizes({HEADS: 3}, gpt2)[HIDDEN] == 24
    assert complete_sizes({HIDDEN: 16}, gpt2)[HEADS] == 2
    assert complete_sizes({HIDDEN: 17}, gpt2) is None
    assert complete_sizes({MLP_RATIO: 1.5, HIDDEN: 24}, llama)[NEURONS] == 36


def test_heads_are_divided_equally_among_groups():
    assert heads_per_group(6, 3, 4) == 2
    for heads in (7, 15):
        with pytest.raises(InputError, match=f"is {heads}, in 3 KV groups of up to 4 heads; allowed: 3, 6, 9, 12"):
            heads_per_group(heads, 3, 4)
