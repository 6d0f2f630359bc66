"""Rescaled blocks against the dense model whose stream is multiplied where blocks are missing."""

from contextlib import ExitStack

import pytest
import torch

from tests.families import family_params
from tests.pruning.surgery.loading import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.repairs import applicable_repairs


def multiplied(ratio):
    def hook(_, args, kwargs):
        if args:
            return (ratio * args[0], *args[1:]), kwargs
        return args, kwargs | {"hidden_states": ratio * kwargs["hidden_states"]}

    return hook


@torch.inference_mode()
def logits_with_multiplied_stream(model, removed, ratios):
    """Return the logits without some blocks, with the stream multiplied before others."""
    with ExitStack() as stack:
        stack.enter_context(layers_skipped(model, removed))
        for layer, ratio in ratios.items():
            block = decoder_blocks(model)[layer]
            stack.callback(block.register_forward_pre_hook(multiplied(ratio), with_kwargs=True).remove)
        return model(TOKENS, use_cache=False).logits


@pytest.mark.parametrize("family", family_params(sorted(FAMILIES), fast=("llama", "gpt2")))
@torch.inference_mode()
def test_dividing_what_blocks_add_is_multiplying_the_stream(family, repair_case):
    dense = repair_case(family)
    keep = {LAYERS: [0, 2]}  # the run behind the last kept block needs nothing: the final norm divides by the length
    if "magnitude" not in applicable_repairs(dense.dense_dir, dense.cut(keep)):
        return
    pruned = dense.pruned(keep, {"magnitude": {}})
    gaps = read_provenance(dense.folder / "pruned").edits[0]["gaps"]
    assert [(gap["before"], gap["after"]) for gap in gaps] == [(1, 1), (3, 3)]
    model = dense.model.float()
    expected = logits_with_multiplied_stream(model, [1, 3], {2: gaps[0]["ratio"]})
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, expected, atol=1e-3, rtol=1e-3)
    plain = logits_with_multiplied_stream(model, [1, 3], {})
    assert not torch.allclose(expected, plain, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_blocks_that_only_stretch_the_stream_are_replaced_exactly_in_two_gaps(repair_case):
    dense = repair_case(num_hidden_layers=6)
    blocks = decoder_blocks(dense.model)
    for layer, factor in ((1, 3.0), (3, 0.5)):
        blocks[layer] = Stretch(factor)
    pruned = dense.pruned({LAYERS: [0, 2, 4, 5]}, {"magnitude": {}})
    logits = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, logits, atol=1e-3, rtol=1e-3)
    ratios = [gap["ratio"] for gap in read_provenance(dense.folder / "pruned").edits[0]["gaps"]]
    assert ratios == pytest.approx([3.0, 0.5], rel=1e-5)


class Stretch(torch.nn.Module):
    """A block that multiplies the stream."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, hidden_states, *_, **__):
        return self.factor * hidden_states


def test_the_ratio_is_that_of_mean_norms_of_kept_channels(repair_case):
    dense = repair_case()
    channels = list(range(16))
    keep = {LAYERS: [0, 3], HIDDEN: channels, NEURONS: [list(range(20))] * 4}
    repair = dense.repairs(keep, {"magnitude": {}})[0]
    norms = {1: 0.0, 3: 0.0}
    with torch.inference_mode():
        for batch in dense.calibration.batches:
            states = dense.model(**batch, output_hidden_states=True).hidden_states
            for layer in norms:
                norms[layer] += states[layer][batch["attention_mask"].bool()][:, channels].norm(dim=-1).sum().item()
    assert repair.record["gaps"] == [{"before": 1, "after": 2, "ratio": pytest.approx(norms[3] / norms[1], rel=1e-5)}]


@pytest.mark.parametrize(
    ("family", "keep", "message"),
    [
        ("llama", {LAYERS: [0, 1]}, "with kept blocks behind a removed one"),
        ("llama", {HIDDEN: [0, 1, 2, 3]}, "with kept blocks behind a removed one"),
        ("gemma2", {LAYERS: [0, 3]}, "norms decide what its blocks add"),
        ("mixtral", {LAYERS: [0, 3]}, "its blocks have experts"),
    ],
)
def test_cuts_that_cannot_be_repaired_raise(family, keep, message, repair_case):
    with pytest.raises(InputError, match=message):
        repair_case(family).repairs(keep, {"magnitude": {}})


def test_a_map_and_a_magnitude_exclude_each_other(repair_case):
    with pytest.raises(InputError, match="choose one of the two"):
        repair_case().repairs({LAYERS: [0, 3]}, {"linear_map": {}, "magnitude": {}})
