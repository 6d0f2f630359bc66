"""The table against an independent truth: transformers' own tensor-parallel plans."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, GROUPS, HEADS, HIDDEN, NEURONS, family_of


# Which dimension of a linear weight a plan's word splits: the output (rows) or the input (columns).
SPLITS = {"colwise": 0, "rowwise": 1}
WIDE = {NEURONS, HEADS, GROUPS, "expert neurons"}


def planned_weights(family: str) -> list[tuple[str, int]]:
    model = tiny_model(family)
    plan = getattr(model.model if hasattr(model, "model") else model, "_tp_plan", None) or {}
    patterns = {name.replace("*", r"\d+"): SPLITS[word] for name, word in plan.items() if word in SPLITS}
    return [
        (name, dim)
        for name, weight in model.named_parameters()
        for pattern, dim in patterns.items()
        if weight.ndim == 2 and re.search(rf"(^|\.){pattern}\.weight$", name)
    ]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_table_agrees_with_the_tensor_parallel_plan(family):
    for name, dim in planned_weights(family):
        if name.endswith("lm_head.weight"):
            continue
        dims = FAMILIES[family].axis_dims(name)
        assert set(dims[dim]) <= WIDE, name
        assert dims[1 - dim] == (HIDDEN,), name


def test_most_families_have_a_plan_to_agree_with():
    assert sum(bool(planned_weights(family)) for family in FAMILIES) >= 30


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_table_knows_every_tensor(family):
    model = tiny_model(family)
    unknown = [name for name in model.state_dict() if FAMILIES[family].dims(name) is None]
    assert not unknown


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_table_gives_each_hidden_dimension_its_length(family):
    """Hidden channels are where a tensor is hidden_size long: sizes chosen to be told apart."""
    row = FAMILIES[family]
    changes = {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 8}
    if not row.head_dim_free or family == "gpt2":
        changes.pop("head_dim")
    if family == "gpt2":
        changes |= {"n_embd": 40, "n_head": 5}
    if family == "opt":
        changes |= {"word_embed_proj_dim": 40}
    small, large = (dict(tiny_model(family, **sizes).named_parameters()) for sizes in ({}, changes))
    for name, weight in small.items():
        grown = [
            dim for dim, (one, other) in enumerate(zip(weight.shape, large[name].shape, strict=True)) if one != other
        ]
        expected = [dim for dim, parts in enumerate(row.axis_dims(name)) if set(parts) & {HIDDEN, HEADS, GROUPS}]
        assert grown == expected, name


def test_unknown_family_is_named_with_its_nearest():
    with pytest.raises(InputError, match="'llamas'.*'llama'"):
        family_of("llamas")


def test_there_are_rows_for_forty_families_and_they_can_be_built():
    assert len(FAMILIES) >= 40
    with torch.device("meta"):
        assert all(AutoModelForCausalLM.from_config(tiny_model(family).config) for family in ("llama", "mixtral"))
