"""Passes that share their first blocks against the model with those blocks skipped."""

from contextlib import ExitStack, contextmanager
from itertools import combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import batch
from trl_prune.pruning.choosing.shared_runs import SharedRuns, num_block_runs
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.repairs.linear_map import runs_between


CHOICES = [(2,), (0, 3), (), (1, 2), (3,), (0,), (2, 3), (1,), (0, 1, 2, 3)]


@torch.inference_mode()
def skipped(model, choice):
    """Return the input of the LM head of a model without some blocks."""
    read = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with layers_skipped(model, choice):
        model(**batch(), use_cache=False)
    hook.remove()
    return read[0]


@pytest.mark.parametrize("family", family_params())
def test_states_are_those_of_the_model_without_the_blocks(family):
    model = tiny_model(family)
    expected = [skipped(model, choice) for choice in CHOICES]
    runs = SharedRuns(model)
    found = dict(runs.final_states(batch(), CHOICES))
    assert found.keys() == set(range(len(CHOICES)))
    assert runs.shares(batch())
    for index, states in found.items():
        torch.testing.assert_close(states, expected[index], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(skipped(model, ()), expected[2])  # the model is as it was


@pytest.fixture(scope="module")
def six_blocks():
    return tiny_model("llama", num_hidden_layers=6)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 5)).map(lambda blocks: tuple(sorted(blocks))), min_size=1, max_size=8))
def test_blocks_run_as_often_as_they_are_counted(six_blocks, choices):
    model, counts = six_blocks, []
    runs = SharedRuns(model)
    list(runs.final_states(batch(), [()]))  # the first passes find out in which form blocks return their states
    list(runs.final_states(batch(), [tuple(range(6))]))
    handles = [block.register_forward_hook(lambda *_: counts.append(1)) for block in decoder_blocks(model)]
    unique = list(dict.fromkeys(choices))
    found = dict(runs.final_states(batch(), unique))
    [handle.remove() for handle in handles]
    assert len(counts) == num_block_runs(choices, 6) <= num_block_runs(unique, 6, shares=False)
    torch.testing.assert_close(found[len(unique) - 1], skipped(model, unique[-1]))


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 5)).map(lambda blocks: tuple(sorted(blocks))), min_size=1, max_size=8))
def test_what_the_block_before_removed_ones_computes_is_shared_only_where_it_is_equal(six_blocks, choices):
    model, counts, blocks = six_blocks, [], decoder_blocks(six_blocks)

    @contextmanager
    def in_place_of(removed):
        """Let the block before each run add a number that tells this run from all others."""
        with ExitStack() as stack:
            for start, end in runs_between(sorted({*range(6)} - {*removed}), 6):
                if start:
                    add = lambda _, __, output, run=(start, end): output + run[0] + run[1] / 8  # noqa: E731
                    stack.callback(blocks[start - 1].mlp.register_forward_hook(add).remove)
            yield

    runs = SharedRuns(model, in_place_of)
    list(runs.final_states(batch(), [()]))
    list(runs.final_states(batch(), [tuple(range(6))]))
    unique = list(dict.fromkeys(choices))
    handles = [block.register_forward_hook(lambda *_: counts.append(1)) for block in blocks]
    found = dict(runs.final_states(batch(), unique))
    [handle.remove() for handle in handles]
    assert len(counts) == num_block_runs(unique, 6, replaced=True)
    for index, choice in enumerate(unique):
        with in_place_of(choice):
            torch.testing.assert_close(found[index], skipped(model, choice))


def test_the_choices_of_a_greedy_step_run_half_of_their_blocks():
    choices = [(layer,) for layer in range(30)]
    assert num_block_runs(choices, 30) == 30 * 29 / 2 + 29
    assert num_block_runs(choices, 30, shares=False) == 30 * 29
    assert num_block_runs(choices, 30, replaced=True) == 30 * 29 / 2 + 29 + 28


def test_all_choices_of_a_size_share_every_common_beginning():
    choices = list(combinations(range(6), 3))
    prefixes = {
        (layer, tuple(block for block in choice if block < layer))
        for choice in choices
        for layer in range(6)
        if layer not in choice
    }
    assert num_block_runs(choices, 6) == len(prefixes)


def test_blocks_that_hand_on_more_than_states_run_whole():
    model = tiny_model("llama")
    runs = SharedRuns(model)
    model.config.num_kv_shared_layers = 2
    assert not runs.shares(batch())
    for index, states in runs.final_states(batch(), CHOICES):
        torch.testing.assert_close(states, skipped(model, CHOICES[index]))
