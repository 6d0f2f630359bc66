"""Untrained checkpoints of a pruned model's shape."""

import torch
from transformers import AutoModelForCausalLM

from trl_prune.checkpoints import dense_root, load_config, read_provenance
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.untrained import write_untrained


def test_an_untrained_model_has_the_shape_but_not_the_weights_of_the_student(dense, tmp_path):
    student = tmp_path / "student"
    prune_checkpoint(dense, student, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    for name in ("first", "second"):
        write_untrained(student, tmp_path / name, 7)
    first, second, pruned = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("first", "second", "student")
    )
    assert first.keys() == pruned.keys()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert all(not torch.equal(first[name], weight) for name, weight in pruned.items() if "proj" in name)
    assert load_config(tmp_path / "first").dtype == load_config(student).dtype
    provenance = read_provenance(tmp_path / "first")
    assert provenance.dense == read_provenance(student).dense
    assert provenance.edits == [{"edit": "random_weights", "seed": 7}]
    assert (tmp_path / "first" / "LICENSE").is_file()
