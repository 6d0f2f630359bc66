import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import save_tiny
from tests.pruning.batches import batch
from trl_prune.checkpoints import load_config, load_model, read_provenance
from trl_prune.pruning.choosing.rounds import prune_in_rounds, size_schedule
from trl_prune.pruning.choosing.units import choose_keep
from trl_prune.pruning.families import HEADS, HIDDEN, LAYERS, NEURONS, family_of
from trl_prune.pruning.importance.scores import score
from trl_prune.pruning.keep import kept_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


def test_the_papers_example_shrinks_in_equal_steps():
    assert size_schedule({HIDDEN: 6144}, {HIDDEN: 4096}, 4) == [{HIDDEN: size} for size in (5632, 5120, 4608, 4096)]
    assert size_schedule({HIDDEN: 6144}, {HIDDEN: 4096}, 1) == [{HIDDEN: 4096}]


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 8), st.sampled_from([1, 2, 3]))
def test_sizes_never_grow_and_end_at_the_target(first, second, rounds, multiple):
    dense, target = max(first, second) * multiple, min(first, second) * multiple
    steps = [step[HEADS] for step in size_schedule({HEADS: dense}, {HEADS: target}, rounds, {HEADS: multiple})]
    assert len(steps) == rounds
    assert [dense, *steps] == sorted([dense, *steps], reverse=True)
    assert steps[-1] == target
    assert all(size % multiple == 0 for size in steps)


def test_rounds_on_checkpoints_end_at_the_target_and_count_in_the_dense_model(tmp_path):
    dense = save_tiny(tmp_path / "dense")
    target = {LAYERS: 3, HEADS: 2, NEURONS: 30, HIDDEN: 20}

    def prune(folder, scores, sizes):
        config = load_config(folder)
        keep = choose_keep(scores, sizes, config, family_of(config.model_type))
        prune_checkpoint(folder, tmp_path / str(sizes[NEURONS]), keep, {LAYERS: 4})
        return tmp_path / str(sizes[NEURONS])

    schedule = size_schedule({LAYERS: 4, HEADS: 4, NEURONS: 48, HIDDEN: 32}, target, 3, {HEADS: 2})
    last = prune_in_rounds(dense, schedule, lambda folder: score(load_model(folder, "float32"), [batch()]), prune)
    assert load_model(last, "float32").config.intermediate_size == 30
    keep = read_provenance(last).keep
    assert kept_sizes(keep).items() >= target.items()
    assert max(keep[NEURONS][0]) < 48


@pytest.mark.parametrize("rounds", [1, 4])
def test_each_round_scores_the_model_of_the_previous_round(rounds):
    """A unit's importance may rise when another is removed: rounds see it, a single cut does not."""
    log = []

    def prune(units, scores, sizes):
        return sorted(sorted(units, key=scores.get)[-sizes["units"] :])

    def importance(units):
        log.append(len(units))
        return {unit: unit if unit != 0 or 1 in units else 99 for unit in units}

    last = prune_in_rounds(list(range(8)), size_schedule({"units": 8}, {"units": 4}, rounds), importance, prune)
    assert len(last) == 4
    assert log == [8, 7, 6, 5][:rounds]
