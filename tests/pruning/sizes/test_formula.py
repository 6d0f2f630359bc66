"""Formulas against models that transformers builds on the meta device, and checkpoints that surgery writes."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import rewrite_tensors, save_tiny, tiny_config
from tests.families import family_params
from trl_prune.pruning.families import EXPERTS, FAMILIES, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Costs, stored_amounts
from trl_prune.pruning.sizes.shapes import complete_sizes, first_units
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import meta_model


ROOT = {"path": "dense", "commit": None, "config_hash": None}
CHOICES = {LAYERS: [1, 3], HIDDEN: [16, 24], NEURONS: [13], HEADS: [2], KV_HEADS: [1], EXPERTS: [2, 3]}


def shapes_of(family: str) -> list[dict[str, int]]:
    """Return shapes with one axis cut each, and with all axes but KV heads cut; those that the format can express."""
    axes = FAMILIES[family].axes
    costs = Costs.of(tiny_config(family))
    single = [{axis: size} for axis in axes for size in CHOICES[axis][-1:]]
    together = {axis: CHOICES[axis][0] for axis in axes - {KV_HEADS, HIDDEN}}
    both = {HEADS: 2, KV_HEADS: 1} if {HEADS, KV_HEADS} <= axes else {}
    shapes = [complete_sizes(sizes, costs) for sizes in [*single, together, both]]
    return [shape for shape in shapes if shape]


@pytest.mark.parametrize("family", family_params())
def test_counts_are_those_of_the_meta_device(family):
    costs = Costs.of(tiny_config(family))
    assert len(shapes_of(family)) > 4
    for sizes in shapes_of(family):
        keep = first_units(sizes, costs)
        model = meta_model(costs.config, keep)
        assert costs.num_parameters(sizes, range(sizes[LAYERS])) == sum(
            weight.numel() for weight in model.parameters()
        ), sizes


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe", "mixtral", "stablelm", "phi3", "gemma3_text"])
def test_bytes_are_those_that_surgery_writes(family, tmp_path):
    dense = save_tiny(tmp_path / "dense", family)
    costs = Costs.of(tiny_config(family), dense)
    sizes = shapes_of(family)[-1]
    layers = [0, 2] if sizes[LAYERS] > 1 else [2]
    sizes = sizes | {LAYERS: len(layers)}
    prune_checkpoint(dense, tmp_path / "pruned", first_units(sizes, costs) | {LAYERS: layers}, ROOT)
    assert costs.disk_bytes(sizes, layers) == sum(amount for _, amount in stored_amounts(tmp_path / "pruned").values())


def test_a_stored_block_that_the_config_does_not_count_has_no_bytes(tmp_path):
    dense = save_tiny(tmp_path / "dense")
    expected = Costs.of(tiny_config("llama"), dense).disk_formula
    rewrite_tensors(dense, lambda tensors: tensors.update({"model.layers.4.mlp.up_proj.weight": torch.ones(48, 32)}))
    assert Costs.of(tiny_config("llama"), dense).disk_formula == expected


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.sets(st.integers(0, 3), min_size=1).map(sorted))
def test_counts_depend_on_the_kept_blocks_where_blocks_differ(family, layers):
    costs = Costs.of(tiny_config(family))
    assert len(costs.parameter_formula.distinct_blocks) == 2
    model = meta_model(costs.config, {LAYERS: layers})
    counted = sum(weight.numel() for weight in model.parameters())
    assert costs.num_parameters(costs.sizes | {LAYERS: len(layers)}, layers) == counted
