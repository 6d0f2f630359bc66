"""What a formula says of any size is what transformers builds on the meta device, and what surgery writes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import save_tiny, tiny_config
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Costs, stored_amounts
from trl_prune.pruning.sizes.grid import first_units, sizes_of
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import meta_model


ROOT = {"path": "dense", "commit": None, "config_hash": None}
CHOICES = {LAYERS: [1, 3], HIDDEN: [16, 24], NEURONS: [13], HEADS: [2], GROUPS: [1], EXPERTS: [2, 3]}


def choices_of(family: str) -> list[dict[str, int]]:
    """Return choices that cut one axis each, and all but KV heads at once; those that the format can express."""
    axes = FAMILIES[family].axes
    costs = Costs.of(tiny_config(family))
    single = [{axis: size} for axis in axes for size in CHOICES[axis][-1:]]
    together = {axis: CHOICES[axis][0] for axis in axes - {GROUPS, HIDDEN}}
    both = {HEADS: 2, GROUPS: 1} if {HEADS, GROUPS} <= axes else {}
    told = [sizes_of(choice, costs) for choice in [*single, together, both]]
    return [sizes for sizes in told if sizes]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_counts_are_those_of_the_meta_device(family):
    costs = Costs.of(tiny_config(family))
    assert len(choices_of(family)) > 4
    for sizes in choices_of(family):
        keep = first_units(sizes, costs)
        model = meta_model(costs.config, keep)
        assert costs.count(sizes, range(sizes[LAYERS])) == sum(weight.numel() for weight in model.parameters()), sizes


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe", "mixtral", "stablelm", "phi3", "gemma3_text"])
def test_bytes_are_those_that_surgery_writes(family, tmp_path):
    dense = save_tiny(tmp_path / "dense", family)
    costs = Costs.of(tiny_config(family), dense)
    sizes = choices_of(family)[-1]
    layers = [0, 2] if sizes[LAYERS] > 1 else [2]
    sizes = sizes | {LAYERS: len(layers)}
    prune_checkpoint(dense, tmp_path / "pruned", first_units(sizes, costs) | {LAYERS: layers}, ROOT)
    assert costs.disk_bytes(sizes, layers) == sum(amount for _, amount in stored_amounts(tmp_path / "pruned").values())


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.sets(st.integers(0, 3), min_size=1).map(sorted))
def test_which_blocks_stay_counts_where_blocks_are_not_alike(family, layers):
    costs = Costs.of(tiny_config(family))
    assert len(costs.parameters.kinds) == 2
    model = meta_model(costs.config, {LAYERS: layers})
    counted = sum(weight.numel() for weight in model.parameters())
    assert costs.count(costs.sizes | {LAYERS: len(layers)}, layers) == counted
