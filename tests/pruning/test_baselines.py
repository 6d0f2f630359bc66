import torch
from transformers import AutoModelForCausalLM

from trl_prune.checkpoints import dense_root, load_config, read_provenance
from trl_prune.pruning.baselines import random_blocks, write_untrained
from trl_prune.pruning.surgery import LAYERS, prune_checkpoint


def test_blocks_are_drawn_blindly_and_again_the_same():
    told = random_blocks(30, 24, 0)
    assert told == sorted(set(told)) == random_blocks(30, 24, 0)
    assert len(told) == 24
    assert set(told) < set(range(30))
    assert told != random_blocks(30, 24, 1)


def test_an_untrained_model_has_the_shape_and_nothing_else_of_the_student(dense, tmp_path):
    student = tmp_path / "student"
    prune_checkpoint(dense, student, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    for name in ("one", "again"):
        write_untrained(student, tmp_path / name, 7)
    model = {name: AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "again")}
    taught = AutoModelForCausalLM.from_pretrained(student).state_dict()
    assert model["one"].keys() == taught.keys()
    assert all(torch.equal(weight, model["again"][name]) for name, weight in model["one"].items())
    assert all(not torch.equal(model["one"][name], weight) for name, weight in taught.items() if "proj" in name)
    assert load_config(tmp_path / "one").dtype == load_config(student).dtype
    told = read_provenance(tmp_path / "one")
    assert told.dense == read_provenance(student).dense
    assert told.edits == [{"edit": "random_weights", "seed": 7}]
    assert (tmp_path / "one" / "LICENSE").is_file()
