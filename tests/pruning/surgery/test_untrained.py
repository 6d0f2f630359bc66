import torch
from transformers import AutoModelForCausalLM

from trl_prune.checkpoints import dense_root, load_config, read_provenance
from trl_prune.pruning.choosing.baselines import random_keep
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.keep import kept_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.untrained import write_untrained


def test_units_are_drawn_blindly_and_again_the_same(dense):
    config = load_config(dense)
    sizes = {LAYERS: 2, HIDDEN: 16, NEURONS: 20, HEADS: 2, GROUPS: 2}
    told = random_keep(sizes, config, 0)
    assert kept_sizes(told) == sizes
    assert told == random_keep(sizes, config, 0)
    other = random_keep(sizes, config, 1)
    assert all(told[axis] != other[axis] for axis in (HIDDEN, NEURONS))
    assert len({tuple(neurons) for neurons in told[NEURONS]}) == 4


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
