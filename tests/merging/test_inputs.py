"""Models are merged as transformers loads them, though mergekit reads their files by rules of its own."""

import json

import pytest
import torch

from tests.conftest import rewrite_tensors, save_tiny
from trl_prune.errors import InputError
from trl_prune.merging.inputs import find_model


def test_a_model_of_which_mergekit_would_read_other_files_is_refused(tmp_path):
    folder = save_tiny(tmp_path / "model")
    assert find_model(folder) == folder
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(InputError, match="transformers loads the single file, mergekit what the index names"):
        find_model(folder)


def test_a_model_with_tensors_that_it_does_not_use_is_refused(tmp_path):
    folder = save_tiny(tmp_path / "model")
    rewrite_tensors(folder, lambda tensors: tensors.update({"v_head.summary.weight": torch.ones(1, 32)}))
    with pytest.raises(InputError, match=r"does not use \(v_head.summary.weight\), which mergekit would merge"):
        find_model(folder)
