"""The family table against an independent source: transformers' tensor-parallel plans."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import tiny_model
from tests.families import family_params
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HEADS, HIDDEN, KV_HEADS, NEURONS, family_of


# The dimension of a linear weight that a plan's entry splits: the output (rows) or the input (columns).
SPLIT_DIMS = {"colwise": 0, "rowwise": 1}
SPLIT_AXES = {NEURONS, HEADS, KV_HEADS, "expert neurons"}


def planned_weights(family: str) -> list[tuple[str, int]]:
    """Return the 2-d weights in the tensor-parallel plan, each with the dimension that it splits."""
    model = tiny_model(family)
    plan = getattr(model.model if hasattr(model, "model") else model, "_tp_plan", None) or {}
    patterns = {name.replace("*", r"\d+"): SPLIT_DIMS[style] for name, style in plan.items() if style in SPLIT_DIMS}
    return [
        (name, dim)
        for name, weight in model.named_parameters()
        for pattern, dim in patterns.items()
        if weight.ndim == 2 and re.search(rf"(^|\.){pattern}\.weight$", name)
    ]


@pytest.mark.parametrize("family", family_params())
def test_table_agrees_with_the_tensor_parallel_plan(family):
    for name, dim in planned_weights(family):
        if name.endswith("lm_head.weight"):
            continue
        axes = FAMILIES[family].dim_axes(name)
        assert set(axes[dim]) <= SPLIT_AXES, name
        assert axes[1 - dim] == (HIDDEN,), name


def test_most_families_have_a_tensor_parallel_plan():
    assert sum(bool(planned_weights(family)) for family in FAMILIES) >= 30


@pytest.mark.parametrize("family", family_params())
def test_table_has_an_entry_for_every_tensor(family):
    model = tiny_model(family)
    unknown = [name for name in model.state_dict() if FAMILIES[family].dims(name) is None]
    assert not unknown


@pytest.mark.parametrize("family", family_params())
def test_table_gives_each_hidden_dimension_its_length(family):
    """Dimensions that grow with hidden_size and heads are those that the table gives these axes."""
    row = FAMILIES[family]
    changes = {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 8}
    if not row.reads_head_dim or family == "gpt2":
        changes.pop("head_dim")
    if family == "gpt2":
        changes |= {"n_embd": 40, "n_head": 5}
    if family == "opt":
        changes |= {"word_embed_proj_dim": 40}
    small, large = (dict(tiny_model(family, **sizes).named_parameters()) for sizes in ({}, changes))
    for name, weight in small.items():
        shapes = zip(weight.shape, large[name].shape, strict=True)
        grown = [dim for dim, (small_length, large_length) in enumerate(shapes) if small_length != large_length]
        expected = [dim for dim, parts in enumerate(row.dim_axes(name)) if set(parts) & {HIDDEN, HEADS, KV_HEADS}]
        assert grown == expected, name


def test_error_on_an_unknown_family_names_the_nearest():
    with pytest.raises(InputError, match="'llamas'.*'llama'"):
        family_of("llamas")


def test_at_least_forty_families_have_a_row_and_can_be_built():
    assert len(FAMILIES) >= 40
    with torch.device("meta"):
        assert all(AutoModelForCausalLM.from_config(tiny_model(family).config) for family in ("llama", "mixtral"))
