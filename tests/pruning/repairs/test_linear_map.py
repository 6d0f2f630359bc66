"""If the removed blocks are a linear map of the MLP output before them, the repair is exact."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from tests.families import family_params
from tests.pruning.surgery.loading import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.repairs import applicable_repairs
from trl_prune.pruning.repairs.linear_map import mlp_output, removed_runs


DENSE_FAMILIES = sorted(
    name for name, row in FAMILIES.items() if not row.norm_plus_one or name in ("gemma", "nemotron")
)


class LinearBlock(nn.Module):
    """A block that adds a linear map of another module's last output to the stream."""

    def __init__(self, module: nn.Module, matrix: torch.Tensor, shift: torch.Tensor):
        super().__init__()
        self.matrix, self.shift, self.outputs = matrix, shift, []
        module.register_forward_hook(lambda _, __, output: self.outputs.append(output))

    def forward(self, hidden_states, *_, **__):
        output = self.outputs.pop().reshape(hidden_states.shape)
        return hidden_states + output @ self.matrix.to(output).mT + self.shift.to(output)


@pytest.mark.parametrize("family", ["llama", "granite", "gpt2", "starcoder2", "gpt_neox", "opt", "gemma", "smollm3"])
@torch.inference_mode()
def test_a_linear_run_is_replaced_exactly(family, repair_case):
    changes = {"residual_multiplier": 0.5} if family == "granite" else {}
    dense = repair_case(family, **changes)
    keep = {LAYERS: [0, 3]}
    name = mlp_output(0, dense.dense_dir, dense.cut(keep))
    module, blocks = dense.calibration.module(name), decoder_blocks(dense.model)
    shift = torch.randn(32) if getattr(module, "bias", None) is not None else torch.zeros(32)
    blocks[1] = LinearBlock(module, 0.3 * torch.randn(32, 32), shift)
    blocks[2] = nn.Identity()
    blocks[2].forward = lambda hidden_states, *_, **__: hidden_states
    pruned = dense.pruned(keep, {"linear_map": {"ridge": 1e-10}})
    dense_logits = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, dense_logits, atol=1e-3, rtol=1e-3)
    plain = dense.pruned(keep, {}, "plain")
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, dense_logits, atol=1e-2)
    record = read_provenance(dense.folder / "pruned").edits[0]
    assert record["maps"][0]["error"]["fitted"] < 1e-6


@pytest.mark.parametrize("family", family_params(DENSE_FAMILIES))
@torch.inference_mode()
def test_the_stream_contains_the_mlp_output_that_a_map_is_folded_into(family, repair_case):
    """A change of the MLP output changes the block output by the same times the gain, in every supported family."""
    dense = repair_case(family)
    keep = {LAYERS: [0, 1, 3]}
    cut = dense.cut(keep)
    if "linear_map" not in applicable_repairs(dense.dense_dir, cut):
        return
    module = dense.calibration.module(mlp_output(1, dense.dense_dir, cut))
    block, outputs = decoder_blocks(dense.model)[1], []
    block.register_forward_hook(
        lambda _, __, output: outputs.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    dense.model(TOKENS, use_cache=False)
    added = torch.randn(32, dtype=torch.float64)
    module.register_forward_hook(lambda _, __, output: output + added)
    dense.model(TOKENS, use_cache=False)
    gain = getattr(dense.model.config, "residual_multiplier", 1.0)
    torch.testing.assert_close(outputs[1] - outputs[0], (gain * added).expand_as(outputs[0]))


def test_which_families_support_a_map(repair_case):
    supported = {}
    for family in ("llama", "gpt2", "gemma", "phi", "gemma2", "olmo2", "glm4", "exaone4", "mixtral", "vaultgemma"):
        dense = type(repair_case())(repair_case().folder / family, family)
        supported[family] = "linear_map" in applicable_repairs(dense.dense_dir, dense.cut({LAYERS: [0, 3]}))
    assert [family for family, is_supported in supported.items() if not is_supported] == [
        "gemma2",
        "olmo2",
        "glm4",
        "exaone4",
        "mixtral",
    ]


@torch.inference_mode()
def test_map_equals_lstsq_and_is_never_worse(repair_case):
    dense = repair_case()
    states: dict = {"output": [], "before": [], "after": []}
    blocks = decoder_blocks(dense.model)
    masks = [batch["attention_mask"].bool() for batch in dense.calibration.batches]
    handles = [
        module.register_forward_hook(lambda _, __, output, key=key: states[key].append(output))
        for key, module in (("output", blocks[0].mlp.down_proj), ("before", blocks[0]), ("after", blocks[2]))
    ]
    for batch in dense.calibration.batches:
        dense.model(**batch)
    for handle in handles:
        handle.remove()
    output, before, after = (
        torch.cat([batch[is_token] for batch, is_token in zip(batches, masks, strict=True)])
        for batches in states.values()
    )
    repair = dense.repairs({LAYERS: [0, 3]}, {"linear_map": {"ridge": 1e-10}})[0]
    matrix = repair.fits.load("model.layers.0.mlp.down_proj.weight", "map").double()
    expected = torch.linalg.lstsq(output, after - (before - output)).solution.mT
    torch.testing.assert_close(matrix, expected, atol=1e-4, rtol=1e-4)
    error = repair.record["maps"][0]["error"]
    remaining = (after - before + output - output @ expected.mT).square().sum() / (after - before).square().sum()
    assert error == {"cut": 1.0, "fitted": pytest.approx(float(remaining), rel=1e-5)}


def test_blocks_above_a_run_do_not_run(repair_case):
    dense, passes = repair_case(num_hidden_layers=6), [0] * 6
    for layer, block in enumerate(decoder_blocks(dense.model)):
        block.register_forward_hook(lambda *_, layer=layer: passes.__setitem__(layer, passes[layer] + 1))
    dense.repairs({LAYERS: [0, 1, 4, 5]}, {"linear_map": {}})
    # The identity in a block's place runs the block once, to see what it returns.
    assert passes == [passes[0]] * 4 + [1, 1]
    assert passes[0] > 1


@torch.inference_mode()
def test_linear_blocks_in_two_gaps_are_replaced_exactly(repair_case):
    dense = repair_case(num_hidden_layers=6)
    keep, blocks = {LAYERS: [0, 2, 3, 5]}, decoder_blocks(dense.model)
    for layer in (1, 4):
        module = dense.calibration.module(mlp_output(layer - 1, dense.dense_dir, dense.cut(keep)))
        blocks[layer] = LinearBlock(module, 0.3 * torch.randn(32, 32), torch.zeros(32))
    pruned = dense.pruned(keep, {"linear_map": {"ridge": 1e-10}})
    logits = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, logits, atol=1e-3, rtol=1e-3)
    assert all(run["error"]["fitted"] < 1e-6 for run in read_provenance(dense.folder / "pruned").edits[0]["maps"])


@torch.inference_mode()
def test_a_map_is_fitted_to_what_the_model_with_the_maps_below_it_computes(repair_case):
    dense = repair_case(num_hidden_layers=6)
    keep = {LAYERS: [0, 2, 3, 5]}
    repair = dense.repairs(keep, {"linear_map": {"ridge": 1e-10}})[0]
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 3)]
    first, second = (repair.fits.load(name, "map").double() for name in names)
    blocks, read = decoder_blocks(dense.model), {"wanted": [], "output": [], "before": []}
    sites = (("wanted", blocks[4]), ("output", blocks[3].mlp.down_proj), ("before", blocks[3]))
    for batch in dense.calibration.batches:
        is_token = batch["attention_mask"].bool()
        with ExitStack() as stack:
            hook = blocks[4].register_forward_hook(lambda *args, to=is_token: read["wanted"].append(args[2][to]))
            stack.callback(hook.remove)
            dense.model(**batch)
        with ExitStack() as stack:
            stack.enter_context(layers_skipped(dense.model, [1]))
            mapped = blocks[0].mlp.down_proj.register_forward_hook(lambda _, __, output: output @ first.mT)
            stack.callback(mapped.remove)
            for key, module in sites[1:]:
                add = lambda *args, key=key, to=is_token: read[key].append(args[2][to])  # noqa: E731
                stack.callback(module.register_forward_hook(add).remove)
            dense.model(**batch)
    wanted, output, before = (torch.cat(read[key]) for key, _ in sites)
    expected = torch.linalg.lstsq(output, wanted - (before - output)).solution.mT
    torch.testing.assert_close(second, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_several_runs_and_widths_together(repair_case):
    dense = repair_case()
    keep = {LAYERS: [0, 2], HIDDEN: list(range(16)), NEURONS: [list(range(20))] * 4}
    assert removed_runs(dense.cut(keep)) == [(1, 2), (3, 4)]
    pruned = dense.pruned(keep, {"least_squares": {}, "linear_map": {}, "norm_rescale": {}})
    assert pruned(TOKENS, use_cache=False).logits.isfinite().all()
    edits = read_provenance(dense.folder / "pruned").edits
    assert [edit["repair"] for edit in edits] == ["least_squares", "linear_map", "norm_rescale"]
    assert [(run["before"], run["after"]) for run in edits[1]["maps"]] == [(1, 1), (3, 3)]
    assert all(run["error"]["fitted"] < run["error"]["cut"] for run in edits[1]["maps"])


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "exaone4", "glm4"])
def test_norms_after_the_mlp_raise(family, repair_case):
    with pytest.raises(
        InputError, match=f"repair {family}: it has a norm between the MLP output and the residual stream"
    ):
        repair_case(family).repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_post_norm_opt_raises(repair_case):
    with pytest.raises(InputError, match="it has a norm between"):
        repair_case("opt", do_layer_norm_before=False).repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_experts_raise(repair_case):
    with pytest.raises(InputError, match="block 0 has experts"):
        repair_case("mixtral").repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_removing_the_first_block_raises(repair_case):
    with pytest.raises(InputError, match="first blocks: there is no MLP before them"):
        repair_case().repairs({LAYERS: [2, 3]}, {"linear_map": {}})


def test_a_plan_that_keeps_all_blocks_raises(repair_case):
    with pytest.raises(InputError, match="the plan keeps every block"):
        repair_case().repairs({HIDDEN: [0, 1, 2, 3]}, {"linear_map": {}})
