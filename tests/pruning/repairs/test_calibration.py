"""Sums against activations gathered by hand."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pruning.repairs.test_least_squares import NEURONS_KEPT, inputs_of
from trl_prune.pruning.families import HIDDEN, NEURONS


@torch.inference_mode()
def test_moments_are_of_every_token_and_of_no_padding(patient):
    dense = patient()
    name = "model.layers.1.mlp.down_proj.weight"
    ((told, moments),) = dense.calibration.input_moments({name: 48})
    rows = inputs_of(dense.model, dense.calibration.module(name))
    assert told == name
    assert moments.count == len(rows) == dense.calibration.tokens == 480
    torch.testing.assert_close(moments.products(), rows.mT @ rows)
    torch.testing.assert_close(moments.mean, rows.mean(dim=0))
    torch.testing.assert_close(moments.products(centred=True) / 479, rows.mT.cov())


@torch.inference_mode()
def test_batches_may_be_split_otherwise(patient):
    dense = patient()
    name = "model.layers.3.mlp.down_proj.weight"
    ((_, whole),) = dense.calibration.input_moments({name: 48})
    dense.calibration.batches = [
        {key: tensor[row : row + 1] for key, tensor in batch.items()}
        for batch in dense.calibration.batches
        for row in range(8)
    ]
    ((_, split),) = dense.calibration.input_moments({name: 48})
    torch.testing.assert_close(split.products(), whole.products())


@pytest.mark.parametrize("wanted", [{"least_squares": {}}, {"norm_rescale": {"energy": "measured"}}])
def test_checkpoints_saved_from_the_bare_backbone(wanted, patient):
    """As GPT-2's on the hub: no `transformer.` in front of its tensors."""
    dense = patient("gpt2")
    keep = {NEURONS: NEURONS_KEPT} if "least_squares" in wanted else {HIDDEN: list(range(16))}
    keep |= {"num_attention_heads": [[0, 1]] * 4} if HIDDEN in keep else {}
    whole = dense.pruned(keep, wanted, "whole").state_dict()
    path = dense.dense_dir / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}, path, {"format": "pt"})
    bare = dense.pruned(keep, wanted, "bare").state_dict()
    assert all(torch.equal(bare[name], whole[name]) for name in whole)
