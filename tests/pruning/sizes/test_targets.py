"""The sizes that a target leads to, and the plan that counts them."""

import pytest

from tests.conftest import tiny_config
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.keep import complete_keep, kept_sizes
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.shrinking import shrunk_sizes
from trl_prune.pruning.sizes.targets import SizeTarget, target_sizes


LLAMA, GPT2 = Costs.of(tiny_config("llama")), Costs.of(tiny_config("gpt2"))


@pytest.mark.parametrize(
    ("costs", "given", "cut"),
    [
        (LLAMA, {LAYERS: 3}, {LAYERS: 3}),
        (LLAMA, {LAYERS: 4, NEURONS: 48}, {}),
        (LLAMA, {KV_HEADS: 1}, {KV_HEADS: 1, HEADS: 2}),
        (GPT2, {HEADS: 2}, {HEADS: 2, HIDDEN: 16}),
    ],
)
def test_given_sizes_determine_the_axes_that_depend_on_them(costs, given, cut):
    sizes = target_sizes(SizeTarget(given), costs)
    assert sizes.cut == cut
    assert sizes.rounding == {}
    assert kept_sizes(complete_keep(sizes.keep, costs.config, costs.family)).items() >= cut.items()


def test_a_budget_names_what_rounding_changed():
    budget, axes = Budget(share=0.81), [NEURONS, LAYERS]
    exact = target_sizes(SizeTarget(budget=budget, axes=axes, rounded=False), LLAMA)
    rounded = target_sizes(SizeTarget(budget=budget, axes=axes), LLAMA)
    assert exact.rounding == {}
    assert LLAMA.sizes | exact.cut == shrunk_sizes(LLAMA, budget, axes, rounded=False)
    assert LLAMA.sizes | rounded.cut == shrunk_sizes(LLAMA, budget, axes)
    full = {axis: (LLAMA.sizes | exact.cut)[axis] for axis in LLAMA.sizes}
    changed = {axis: (size, (LLAMA.sizes | rounded.cut)[axis]) for axis, size in full.items()}
    assert rounded.rounding == {axis: sizes for axis, sizes in changed.items() if sizes[0] != sizes[1]}
    assert rounded.rounding


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (SizeTarget({HIDDEN: 33}), r"hidden_size is 33; allowed: 1\.\.32 \(the model has 32\)"),
        (SizeTarget({EXPERTS: 2}), "num_experts"),
        (SizeTarget({HEADS: 3}), "num_attention_heads is 3, in 2 KV groups of up to 2 heads; allowed: 2, 4"),
        (SizeTarget(budget=Budget(parameters=1e9), axes=[EXPERTS]), "num_experts"),
    ],
)
def test_sizes_and_axes_that_the_model_cannot_have_are_refused(target, message):
    with pytest.raises(InputError, match=message):
        target_sizes(target, LLAMA)
