"""Plans from scores: against brute force, and accepted by `complete_keep` for every family."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import batch
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.blocks import SELECTIONS
from trl_prune.pruning.choosing.units import (
    EXPERT_SCORES,
    HIDDEN_SCORES,
    Ranking,
    choose_keep,
    highest_indices,
    unit_scores,
)
from trl_prune.pruning.deriving.tiny import tiny_config as derived_config
from trl_prune.pruning.deriving.tiny import tiny_model as derived_model
from trl_prune.pruning.families import EXPERTS, FAMILIES, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS, derived_rows
from trl_prune.pruning.importance.scores import Scores, score
from trl_prune.pruning.keep import axis_sizes, kept_sizes


SMALLER = {LAYERS: 3, NEURONS: 20, EXPERTS: 2, HIDDEN: 16, HEADS: 2}


def scored(family, **changes) -> tuple[Scores, object]:
    model = tiny_model(family, **changes)
    return score(model, [batch()]), model.config


@pytest.mark.parametrize("family", family_params())
def test_every_axis_of_every_family_is_chosen_alone_and_together(family):
    scores, config = scored(family)
    row = FAMILIES[family]
    sizes = {axis: size for axis, size in SMALLER.items() if axis in axis_sizes(config, row)}
    assert kept_sizes(choose_keep(scores, sizes, config, row)).items() >= sizes.items()
    tied = set() if row.reads_head_dim else {HEADS, HIDDEN}
    for axis in sizes.keys() - tied:
        keep = choose_keep(scores, {axis: sizes[axis]}, config, row)
        assert kept_sizes(keep).items() >= ({LAYERS: 4} | {axis: sizes[axis]}).items()
        if axis in (NEURONS, EXPERTS):
            assert keep[axis] == highest_indices(unit_scores(scores, axis, Ranking()), sizes[axis])


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe", "olmo2"])
def test_heads_are_the_best_of_each_group_and_groups_are_cut_with_their_heads(family):
    scores, config = scored(family, num_attention_heads=8, head_dim=8, hidden_size=48)
    row = FAMILIES[family]
    best = scores.heads()
    keep = choose_keep(scores, {HEADS: 4}, config, row)
    for layer, heads in enumerate(keep[HEADS]):
        for group in (range(4), range(4, 8)):
            inside = sorted(group, key=lambda head: -best[layer, head])[:2]
            assert [head for head in heads if head in group] == sorted(inside)
    both = choose_keep(scores, {HEADS: 3, KV_HEADS: 1}, config, row)
    for layer, (heads, groups) in enumerate(zip(both[HEADS], both[KV_HEADS], strict=True)):
        assert groups == [int(scores.kv_heads()[layer].argmax())]
        assert {head // 4 for head in heads} == set(groups)
        assert len(heads) == 3
    assert kept_sizes(choose_keep(scores, {KV_HEADS: 1}, config, row)) == {LAYERS: 4, HEADS: 4, KV_HEADS: 1}


def test_where_each_head_has_its_own_kv_head_they_are_cut_together():
    scores, config = scored("llama", num_key_value_heads=4, hidden_size=48)
    keep = choose_keep(scores, {KV_HEADS: 3}, config, FAMILIES["llama"])
    assert keep[HEADS] == keep[KV_HEADS] == highest_indices(scores.heads(), 3)
    with pytest.raises(InputError, match="each head has its own KV head"):
        choose_keep(scores, {KV_HEADS: 3, HEADS: 2}, config, FAMILIES["llama"])


def test_sizes_of_the_dense_model_cut_nothing():
    scores, config = scored("llama")
    assert choose_keep(scores, scores.sizes, config, FAMILIES["llama"]) == {LAYERS: [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({HEADS: 3}, "is 3, in 2 KV groups of up to 2 heads; allowed: 2, 4"),
        ({HEADS: 4, KV_HEADS: 1}, "is 4, in 1 KV groups of up to 2 heads; allowed: 1, 2"),
        ({NEURONS: 49}, r"intermediate_size is 49; allowed: 1\.\.48"),
        ({HIDDEN: 0}, r"hidden_size is 0; allowed: 1\.\.32"),
        ({EXPERTS: 2}, "'num_experts' is not an axis of llama"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    scores, config = scored("llama")
    with pytest.raises(InputError, match=message):
        choose_keep(scores, sizes, config, FAMILIES["llama"])


def test_heads_alone_are_refused_where_head_dim_follows_the_hidden_size():
    scores, config = scored("gpt2")
    with pytest.raises(InputError, match="heads and hidden channels can only be cut together"):
        choose_keep(scores, {HEADS: 2}, config, FAMILIES["gpt2"])


def test_scores_of_another_model_are_refused():
    scores, _ = scored("llama", intermediate_size=40)
    other = tiny_model("llama").config
    with pytest.raises(InputError, match="the scores are of a model with"):
        choose_keep(scores, {NEURONS: 4}, other, FAMILIES["llama"])


def test_layers_come_from_scores_or_from_a_measured_effect():
    scores, config = scored("llama")
    for name, select in SELECTIONS.items():
        keep = choose_keep(scores, {LAYERS: 2}, config, FAMILIES["llama"], Ranking(layers_by=name))
        assert sorted({0, 1, 2, 3} - set(keep[LAYERS])) == select(scores.layers, 2, 0)
    assert choose_keep(scores, {}, config, FAMILIES["llama"], Ranking(removed=[2]))[LAYERS] == [0, 1, 3]
    with pytest.raises(InputError, match="is 2, but 1 of 4"):
        choose_keep(scores, {LAYERS: 2}, config, FAMILIES["llama"], Ranking(removed=[2]))


def test_network_scope_keeps_the_same_indices_everywhere():
    scores, config = scored("llama")
    keep = choose_keep(scores, {NEURONS: 20}, config, FAMILIES["llama"], Ranking(scope="network"))
    assert keep[NEURONS] == highest_indices(scores.neurons().sum(dim=0)[None], 20) * 4
    assert keep != choose_keep(scores, {NEURONS: 20}, config, FAMILIES["llama"])


def test_units_of_hybrids_are_chosen_in_the_blocks_that_have_them():
    """Nemotron-H's tiny model has attention in block 2 and an MLP in block 3."""
    model = derived_model(derived_config("nemotron_h"))
    scores, row = score(model, [batch()]), derived_rows()["nemotron_h"]
    assert scores.heads().any(dim=1).tolist() == [layer == 2 for layer in range(6)]
    keep = choose_keep(scores, {HEADS: 2, NEURONS: 20}, model.config, row)
    assert keep[HEADS][2] == highest_indices(scores.heads().unflatten(1, (2, 2)), 1)[2][0] + [
        head + 2 for head in highest_indices(scores.heads().unflatten(1, (2, 2)), 1)[2][1]
    ]
    assert kept_sizes(keep).items() >= {HEADS: 2, NEURONS: 20}.items()


def test_random_width_follows_the_seed_and_not_the_scores():
    scores, config = scored("llama")
    rankings = [Ranking(width_by="random", seed=seed) for seed in (0, 0, 1)]
    sizes = {NEURONS: 20, HIDDEN: 16}
    plans = [choose_keep(scores, sizes, config, FAMILIES["llama"], ranking) for ranking in rankings]
    assert plans[0] == plans[1] != plans[2]


def test_hidden_and_expert_scores_are_entries():
    scores, config = scored("qwen3_moe")
    for name, expected in (("norm", scores.hidden()), ("energy", scores.energy())):
        keep = choose_keep(scores, {HIDDEN: 24}, config, FAMILIES["qwen3_moe"], Ranking(hidden_by=name))
        assert keep[HIDDEN] == highest_indices(expected[None], 24)[0]
    assert set(HIDDEN_SCORES) == {"norm", "energy"}
    for name in EXPERT_SCORES:
        keep = choose_keep(scores, {EXPERTS: 2}, config, FAMILIES["qwen3_moe"], Ranking(experts_by=name))
        assert keep[EXPERTS] == highest_indices(scores.expert_importance(name), 2)


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3), st.integers(1, 5))
def test_highest_indices_ascend_and_ties_go_to_the_lower_index(rows, count):
    indices = highest_indices(torch.tensor(rows, dtype=torch.float64), count)
    for row, kept in zip(rows, indices, strict=True):
        assert kept == sorted(sorted(range(5), key=lambda unit: (-row[unit], unit))[:count])
