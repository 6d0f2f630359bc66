"""Moments against activations collected with plain hooks."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pruning.repairs.test_least_squares import NEURONS_KEPT, inputs_of
from trl_prune.pruning.families import HIDDEN, NEURONS


@torch.inference_mode()
def test_moments_are_over_every_token_without_padding(repair_case):
    dense = repair_case()
    name = "model.layers.1.mlp.down_proj.weight"
    ((moments_of, moments),) = dense.calibration.input_moments({name: 48})
    inputs = inputs_of(dense.model, dense.calibration.module(name))
    assert moments_of == name
    assert moments.count == len(inputs) == dense.calibration.tokens == 480
    torch.testing.assert_close(moments.products(), inputs.mT @ inputs)
    torch.testing.assert_close(moments.mean, inputs.mean(dim=0))
    torch.testing.assert_close(moments.products(centred=True) / 479, inputs.mT.cov())


@torch.inference_mode()
def test_moments_do_not_depend_on_the_batch_split(repair_case):
    dense = repair_case()
    name = "model.layers.3.mlp.down_proj.weight"
    ((_, full),) = dense.calibration.input_moments({name: 48})
    dense.calibration.batches = [
        {key: tensor[row : row + 1] for key, tensor in batch.items()}
        for batch in dense.calibration.batches
        for row in range(8)
    ]
    ((_, split),) = dense.calibration.input_moments({name: 48})
    torch.testing.assert_close(split.products(), full.products())


@pytest.mark.parametrize("requested", [{"least_squares": {}}, {"norm_rescale": {"energy": "measured"}}])
def test_checkpoints_saved_from_the_bare_backbone(requested, repair_case):
    """As GPT-2's on the hub, whose tensor names lack the prefix `transformer.`."""
    dense = repair_case("gpt2")
    keep = {NEURONS: NEURONS_KEPT} if "least_squares" in requested else {HIDDEN: list(range(16))}
    keep |= {"num_attention_heads": [[0, 1]] * 4} if HIDDEN in keep else {}
    prefixed = dense.pruned(keep, requested, "prefixed").state_dict()
    path = dense.dense_dir / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}, path, {"format": "pt"})
    bare = dense.pruned(keep, requested, "bare").state_dict()
    assert all(torch.equal(bare[name], prefixed[name]) for name in prefixed)
