"""Random plans, the baseline of every score."""

from trl_prune.checkpoints import load_config
from trl_prune.pruning.choosing.baselines import random_keep
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.keep import kept_sizes


def test_random_plans_depend_on_the_seed_only(dense):
    config = load_config(dense)
    sizes = {LAYERS: 2, HIDDEN: 16, NEURONS: 20, HEADS: 2, KV_HEADS: 2}
    keep = random_keep(sizes, config, 0)
    assert kept_sizes(keep) == sizes
    assert keep == random_keep(sizes, config, 0)
    other_keep = random_keep(sizes, config, 1)
    assert all(keep[axis] != other_keep[axis] for axis in (HIDDEN, NEURONS))
    assert len({tuple(neurons) for neurons in keep[NEURONS]}) == 4
