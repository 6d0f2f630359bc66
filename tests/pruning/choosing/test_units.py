"""Choices against brute force, and plans that `complete_keep` accepts for every family."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from tests.pruning.batches import batch
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.blocks import (
    REMOVALS,
    SELECTIONS,
    cached_loss,
    deepest,
    greedy_removal,
    lowest_angular_block,
    lowest_block_influence,
    random_blocks,
)
from trl_prune.pruning.choosing.units import EXPERT_SCORES, HIDDEN_SCORES, Ranking, choose_keep, highest, unit_scores
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores, score
from trl_prune.pruning.keep import axis_sizes, kept_sizes


def scores(num_layers=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    cosine = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    return LayerScores(angle, cosine, positions=1)


def test_contiguous_block_is_the_argmin_over_starts():
    for seed in range(20):
        told = scores(seed=seed)
        for count in (1, 2, 3, 6):
            starts = range(6 - count + 1)
            best = min(starts, key=[told.angle[start, start + count].item() for start in starts].__getitem__)
            assert lowest_angular_block(told, count) == list(range(best, best + count))


def test_lowest_influence_picks_the_smallest_changes():
    told = scores()
    influence = (1 - told.cosine.diagonal(1)).tolist()
    assert lowest_block_influence(told, 2) == sorted(sorted(range(6), key=influence.__getitem__)[:2])


@given(st.sampled_from(sorted(SELECTIONS)), st.integers(1, 6), st.integers(0, 9))
def test_every_selection_returns_sorted_distinct_blocks(name, count, seed):
    removed = SELECTIONS[name](scores(), count, seed)
    assert removed == sorted(set(removed))
    assert set(removed) <= set(range(6))
    assert len(removed) == count


def test_deepest_keeps_the_last():
    assert deepest(scores(), 2) == [3, 4]
    assert deepest(scores(), 5) == [0, 1, 2, 3, 4]


def test_random_blocks_follow_the_seed():
    assert random_blocks(scores(), 3, 1) == random_blocks(scores(), 3, 1)
    assert len({tuple(random_blocks(scores(), 3, seed)) for seed in range(20)}) > 5


# Block 1 is cheapest alone and 2 next; together they are dear. 4 and 5 are cheap as a run only.
def loss(removed):
    alone = sum({0: 5, 1: 1, 2: 2, 3: 3, 4: 6, 5: 6}[block] for block in removed)
    return alone + 10 * ({1, 2} <= set(removed)) - 11 * ({4, 5} <= set(removed))


def test_greedy_removal_takes_the_cheapest_given_what_is_gone():
    assert greedy_removal(loss, 6, []) == 1
    assert greedy_removal(loss, 6, [1]) == 3


@pytest.mark.parametrize(("mode", "removed"), [("single", [1, 2]), ("greedy", [1, 3]), ("contiguous", [4, 5])])
def test_removals_by_measured_effect(mode, removed):
    assert REMOVALS[mode](loss, 6, 2) == removed


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=4, max_size=7), st.data())
def test_all_modes_agree_where_effects_add_up_and_contiguous_is_the_best_run(effects, data):
    count = data.draw(st.integers(1, len(effects)))
    adding = lambda removed: sum(effects[block] for block in removed)  # noqa: E731
    best = min(adding(blocks) for blocks in combinations(range(len(effects)), count))
    for mode in ("single", "greedy"):
        assert adding(REMOVALS[mode](adding, len(effects), count)) == pytest.approx(best)
    run = REMOVALS["contiguous"](adding, len(effects), count)
    assert run == list(range(run[0], run[0] + count))
    assert all(adding(run) <= adding(range(at, at + count)) + 1e-9 for at in range(len(effects) - count + 1))


def test_a_remembered_loss_goes_on_where_it_was(tmp_path):
    asked = []

    def counted(removed):
        asked.append(sorted(removed))
        if len(asked) == 8:
            raise KeyboardInterrupt
        return loss(removed)

    with pytest.raises(KeyboardInterrupt):
        REMOVALS["greedy"](cached_loss(counted, tmp_path / "losses.json"), 6, 3)
    assert REMOVALS["greedy"](cached_loss(counted, tmp_path / "losses.json"), 6, 3) == REMOVALS["greedy"](loss, 6, 3)
    assert len(asked) == 6 + 5 + 4 + 1  # only the interrupted one was asked twice
    assert asked.count(asked[7]) == 2


# --- plans -----------------------------------------------------------------------------------------------------------

SMALLER = {LAYERS: 3, NEURONS: 20, EXPERTS: 2, HIDDEN: 16, HEADS: 2}


def scored(family, **changes) -> tuple[Scores, object]:
    model = tiny_model(family, **changes)
    return score(model, [batch()]), model.config


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_axis_of_every_family_is_chosen_alone_and_together(family):
    told, config = scored(family)
    row = FAMILIES[family]
    sizes = {axis: size for axis, size in SMALLER.items() if axis in axis_sizes(config, row)}
    assert kept_sizes(choose_keep(told, sizes, config, row)).items() >= sizes.items()
    tied = set() if row.head_dim_free else {HEADS, HIDDEN}
    for axis in sizes.keys() - tied:
        keep = choose_keep(told, {axis: sizes[axis]}, config, row)
        assert (
            kept_sizes(keep).items() >= {LAYERS: sizes.get(LAYERS) if axis == LAYERS else 4, axis: sizes[axis]}.items()
        )
        wanted = highest(unit_scores(told, axis, Ranking()), sizes[axis]) if axis in (NEURONS, EXPERTS) else None
        assert wanted is None or keep[axis] == wanted


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe", "olmo2"])
def test_heads_are_the_best_of_each_group_and_groups_take_theirs_along(family):
    told, config = scored(family, num_attention_heads=8, head_dim=8, hidden_size=48)
    row = FAMILIES[family]
    best = told.heads()
    keep = choose_keep(told, {HEADS: 4}, config, row)
    for layer, heads in enumerate(keep[HEADS]):
        for group in (range(4), range(4, 8)):
            inside = sorted(group, key=lambda head: -best[layer, head])[:2]
            assert [head for head in heads if head in group] == sorted(inside)
    both = choose_keep(told, {HEADS: 3, GROUPS: 1}, config, row)
    for layer, (heads, groups) in enumerate(zip(both[HEADS], both[GROUPS], strict=True)):
        assert groups == [int(told.groups()[layer].argmax())]
        assert {head // 4 for head in heads} == set(groups)
        assert len(heads) == 3
    assert kept_sizes(choose_keep(told, {GROUPS: 1}, config, row)) == {LAYERS: 4, HEADS: 4, GROUPS: 1}


def test_where_each_head_has_its_own_kv_head_they_go_together():
    told, config = scored("llama", num_key_value_heads=4, hidden_size=48)
    keep = choose_keep(told, {GROUPS: 3}, config, FAMILIES["llama"])
    assert keep[HEADS] == keep[GROUPS] == highest(told.heads(), 3)
    with pytest.raises(InputError, match="each head has its own KV head"):
        choose_keep(told, {GROUPS: 3, HEADS: 2}, config, FAMILIES["llama"])


def test_sizes_of_the_dense_model_cut_nothing():
    told, config = scored("llama")
    assert choose_keep(told, told.sizes, config, FAMILIES["llama"]) == {LAYERS: [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({HEADS: 3}, "3 in 2 KV groups of up to 2; allowed: 2, 4"),
        ({HEADS: 4, GROUPS: 1}, "4 in 1 KV groups of up to 2; allowed: 1, 2"),
        ({NEURONS: 49}, r"intermediate_size is to be 49; allowed: 1\.\.48"),
        ({HIDDEN: 0}, r"hidden_size is to be 0; allowed: 1\.\.32"),
        ({EXPERTS: 2}, "'num_experts'; llama has"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, said):
    told, config = scored("llama")
    with pytest.raises(InputError, match=said):
        choose_keep(told, sizes, config, FAMILIES["llama"])


def test_heads_alone_are_refused_where_head_dim_follows_the_hidden_size():
    told, config = scored("gpt2")
    with pytest.raises(InputError, match="heads and hidden channels can only go together"):
        choose_keep(told, {HEADS: 2}, config, FAMILIES["gpt2"])


def test_scores_of_another_model_are_refused():
    told, _ = scored("llama", intermediate_size=40)
    other = tiny_model("llama").config
    with pytest.raises(InputError, match="the scores are of a model with"):
        choose_keep(told, {NEURONS: 4}, other, FAMILIES["llama"])


def test_layers_come_from_scores_or_from_a_measured_effect():
    told, config = scored("llama")
    for name, select in SELECTIONS.items():
        keep = choose_keep(told, {LAYERS: 2}, config, FAMILIES["llama"], Ranking(layers_by=name))
        assert sorted({0, 1, 2, 3} - set(keep[LAYERS])) == select(told.layers, 2, 0)
    assert choose_keep(told, {}, config, FAMILIES["llama"], Ranking(removed=[2]))[LAYERS] == [0, 1, 3]
    with pytest.raises(InputError, match="is to be 2, but 1 of 4"):
        choose_keep(told, {LAYERS: 2}, config, FAMILIES["llama"], Ranking(removed=[2]))


def test_network_scope_keeps_the_same_indices_everywhere():
    told, config = scored("llama")
    keep = choose_keep(told, {NEURONS: 20}, config, FAMILIES["llama"], Ranking(scope="network"))
    assert keep[NEURONS] == highest(told.neurons().sum(dim=0)[None], 20) * 4
    assert keep != choose_keep(told, {NEURONS: 20}, config, FAMILIES["llama"])


def test_random_width_follows_the_seed_and_not_the_scores():
    told, config = scored("llama")
    plans = [
        choose_keep(told, {NEURONS: 20, HIDDEN: 16}, config, FAMILIES["llama"], Ranking(width_by="random", seed=seed))
        for seed in (0, 0, 1)
    ]
    assert plans[0] == plans[1] != plans[2]


def test_hidden_and_expert_scores_are_entries():
    told, config = scored("qwen3_moe")
    for name, wanted in (("norm", told.hidden()), ("energy", told.energy())):
        by = Ranking(hidden_by=name)
        assert (
            choose_keep(told, {HIDDEN: 24}, config, FAMILIES["qwen3_moe"], by)[HIDDEN] == highest(wanted[None], 24)[0]
        )
    assert set(HIDDEN_SCORES) == {"norm", "energy"}
    for name, weighted in (("norm", False), ("weighted_norm", True)):
        keep = choose_keep(told, {EXPERTS: 2}, config, FAMILIES["qwen3_moe"], Ranking(experts_by=name))
        assert keep[EXPERTS] == highest(told.expert_norms(weighted), 2)
    assert set(EXPERT_SCORES) == {"norm", "weighted_norm"}


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3), st.integers(1, 5))
def test_highest_are_growing_indices_and_ties_fall_to_the_first(rows, count):
    told = highest(torch.tensor(rows, dtype=torch.float64), count)
    for row, kept in zip(rows, told, strict=True):
        assert kept == sorted(sorted(range(5), key=lambda unit: (-row[unit], unit))[:count])
