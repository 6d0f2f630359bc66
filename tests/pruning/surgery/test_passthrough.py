"""The exported recipe, run by mergekit, gives the same tensors."""

from itertools import pairwise

import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file

from tests.conftest import save_tiny
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.passthrough import contiguous_ranges, passthrough_recipe


@given(st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted))
def test_ranges_cover_the_indices_and_are_as_few_as_possible(indices):
    ranges = contiguous_ranges(indices)
    assert [index for start, end in ranges for index in range(start, end)] == indices
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


def test_mergekit_writes_the_same_checkpoint(tmp_path):
    dense = save_tiny(tmp_path / "dense", tie_word_embeddings=False)
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 1, 3]}, {"path": "dense"})
    recipe = MergeConfiguration.model_validate(yaml.safe_load(passthrough_recipe(str(dense), [0, 1, 3], "float32")))
    run_merge(recipe, str(tmp_path / "merged"), MergeOptions(lazy_unpickle=True, quiet=True, write_model_card=False))
    pruned, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("pruned", "merged"))
    assert pruned.keys() == merged.keys()
    assert all(torch.equal(pruned[name], merged[name]) for name in pruned)
