"""Training with intermediate states."""

import pytest
from peft import LoraConfig

from tests.conftest import save_tiny
from tests.trainers.kd.training import logged, train
from trl_prune.errors import InputError


def test_states_inside_blocks_are_refused_with_reentrant_checkpointing(pruned, tmp_path):
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(InputError, match="hidden_loss names 'mlp', whose gradient re-entrant"):
        train(pruned, tmp_path, hidden_loss=["mlp"], **checkpointing)


def test_the_provenance_does_not_map_blocks_of_another_teacher(pruned, tmp_path):
    other = save_tiny(tmp_path / "other", num_hidden_layers=8, seed=4)
    trainer = train(pruned, tmp_path, teacher=str(other), hidden_loss=["block"], max_steps=1)
    assert [point.block for point in trainer.hidden_loss.pairs.teacher] == [5]
    with pytest.raises(InputError, match="layer_map is 'origins', but the student has no provenance"):
        train(pruned, tmp_path, teacher=str(other), hidden_loss=["block"], layer_map="origins")
    shallow = save_tiny(tmp_path / "shallow", num_hidden_layers=2, seed=4)
    peft_config = LoraConfig(r=2, target_modules="all-linear")
    trainer = train(pruned, tmp_path, teacher=str(shallow), peft_config=peft_config, max_steps=1)
    assert logged(trainer, "kd_loss")


@pytest.mark.parametrize("layer_map", ["auto", {0: 0}, {1: 1}])
def test_the_hidden_loss_starts_as_large_as_the_divergence(layer_map, pruned, tmp_path):
    """The student's first blocks are the teacher's own, so that their states agree at first."""
    trainer = train(pruned, tmp_path, max_steps=6, hidden_loss=["embedding", "block"], layer_map=layer_map)
    for loss, divergence in logged(trainer, "loss", "kd_loss"):
        assert loss < 4 * divergence


@pytest.mark.parametrize(
    ("layer_map", "message"),
    [
        ({0: 9}, "names block 9 of the teacher, which has blocks 0 to 3"),
        ({3: 1}, "names block 3 of the student, which has blocks 0 to 2"),
        ({"a": 1}, "wanted: student's block -> teacher's block, two numbers"),
        ({}, "layer_map is empty"),
    ],
)
def test_layer_maps_that_do_not_fit_are_refused(layer_map, message, pruned, tmp_path):
    with pytest.raises(InputError, match=message):
        train(pruned, tmp_path, hidden_loss=["block"], layer_map=layer_map)
