"""Oracle: where the removed blocks are a linear map of the MLP output before them, nothing is lost."""

import pytest
import torch
from torch import nn

from tests.pruning.surgery.test_checkpoint import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.observation import decoder_blocks
from trl_prune.pruning.repairs import fitting_repairs
from trl_prune.pruning.repairs.linear_map import mlp_output, removed_runs


DENSE_FAMILIES = sorted(
    name for name, row in FAMILIES.items() if not row.norm_plus_one or name in ("gemma", "nemotron")
)


class Moved(nn.Module):
    """A block that moves the stream by a linear map of another module's last output."""

    def __init__(self, module: nn.Module, matrix: torch.Tensor, shift: torch.Tensor):
        super().__init__()
        self.matrix, self.shift, self.seen = matrix, shift, []
        module.register_forward_hook(lambda _, __, output: self.seen.append(output))

    def forward(self, hidden_states, *_, **__):
        seen = self.seen.pop().reshape(hidden_states.shape)
        return hidden_states + seen @ self.matrix.to(seen).mT + self.shift.to(seen)


@pytest.mark.parametrize("family", ["llama", "granite", "gpt2", "starcoder2", "gpt_neox", "opt", "gemma", "smollm3"])
@torch.inference_mode()
def test_a_run_that_is_linear_is_replaced_exactly(family, patient):
    changes = {"residual_multiplier": 0.5} if family == "granite" else {}
    dense = patient(family, **changes)
    keep = {LAYERS: [0, 3]}
    name = mlp_output(0, dense.dense_dir, dense.cut(keep))
    module, blocks = dense.calibration.module(name), decoder_blocks(dense.model)
    shift = torch.randn(32) if getattr(module, "bias", None) is not None else torch.zeros(32)
    blocks[1] = Moved(module, 0.3 * torch.randn(32, 32), shift)
    blocks[2] = nn.Identity()
    blocks[2].forward = lambda hidden_states, *_, **__: hidden_states
    pruned = dense.pruned(keep, {"linear_map": {"ridge": 1e-10}})
    wanted = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, wanted, atol=1e-3, rtol=1e-3)
    plain = dense.pruned(keep, {}, "plain")
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, wanted, atol=1e-2)
    record = read_provenance(dense.folder / "pruned").edits[0]
    assert record["maps"][0]["error"]["fitted"] < 1e-6


@pytest.mark.parametrize("family", DENSE_FAMILIES)
@torch.inference_mode()
def test_the_stream_holds_the_mlp_output_where_a_map_is_folded(family, patient):
    """Adding to the MLP's output adds the same, times the gain, to the block's output; or the family is refused."""
    dense = patient(family)
    keep = {LAYERS: [0, 1, 3]}
    cut = dense.cut(keep)
    if "linear_map" not in fitting_repairs(dense.dense_dir, cut):
        return
    module = dense.calibration.module(mlp_output(1, dense.dense_dir, cut))
    block, seen = decoder_blocks(dense.model)[1], []
    block.register_forward_hook(
        lambda _, __, output: seen.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    dense.model(TOKENS, use_cache=False)
    added = torch.randn(32, dtype=torch.float64)
    module.register_forward_hook(lambda _, __, output: output + added)
    dense.model(TOKENS, use_cache=False)
    gain = getattr(dense.model.config, "residual_multiplier", 1.0)
    torch.testing.assert_close(seen[1] - seen[0], (gain * added).expand_as(seen[0]))


def test_most_families_can_take_a_map(patient):
    fits = {}
    for family in ("llama", "gpt2", "gemma", "phi", "gemma2", "olmo2", "glm4", "exaone4", "mixtral", "vaultgemma"):
        dense = type(patient())(patient().folder / family, family)
        fits[family] = "linear_map" in fitting_repairs(dense.dense_dir, dense.cut({LAYERS: [0, 3]}))
    assert [family for family, fit in fits.items() if not fit] == ["gemma2", "olmo2", "glm4", "exaone4", "mixtral"]


@torch.inference_mode()
def test_map_equals_lstsq_and_is_never_worse(patient):
    dense = patient()
    seen: dict = {"output": [], "before": [], "after": []}
    blocks = decoder_blocks(dense.model)
    mask = [batch["attention_mask"].bool() for batch in dense.calibration.batches]
    handles = [
        module.register_forward_hook(lambda _, __, output, key=key: seen[key].append(output))
        for key, module in (("output", blocks[0].mlp.down_proj), ("before", blocks[0]), ("after", blocks[2]))
    ]
    for batch in dense.calibration.batches:
        dense.model(**batch)
    for handle in handles:
        handle.remove()
    output, before, after = (
        torch.cat([states[kept] for states, kept in zip(told, mask, strict=True)]) for told in seen.values()
    )
    repair = dense.repairs({LAYERS: [0, 3]}, {"linear_map": {"ridge": 1e-10}})[0]
    matrix = repair.scratch.load("model.layers.0.mlp.down_proj.weight", "map").double()
    wanted = torch.linalg.lstsq(output, after - (before - output)).solution.mT
    torch.testing.assert_close(matrix, wanted, atol=1e-4, rtol=1e-4)
    error = repair.record["maps"][0]["error"]
    left = (after - before + output - output @ wanted.mT).square().sum() / (after - before).square().sum()
    assert error == {"cut": 1.0, "fitted": pytest.approx(float(left), rel=1e-5)}


@torch.inference_mode()
def test_several_runs_and_widths_together(patient):
    dense = patient()
    keep = {LAYERS: [0, 2], HIDDEN: list(range(16)), NEURONS: [list(range(20))] * 4}
    assert removed_runs(dense.cut(keep)) == [(1, 2), (3, 4)]
    pruned = dense.pruned(keep, {"least_squares": {}, "linear_map": {}, "norm_rescale": {}})
    assert pruned(TOKENS, use_cache=False).logits.isfinite().all()
    edits = read_provenance(dense.folder / "pruned").edits
    assert [edit["repair"] for edit in edits] == ["least_squares", "linear_map", "norm_rescale"]
    assert [(told["before"], told["after"]) for told in edits[1]["maps"]] == [(1, 1), (3, 3)]
    assert all(told["error"]["fitted"] < told["error"]["cut"] for told in edits[1]["maps"])


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "exaone4", "glm4"])
def test_norms_after_the_mlp_are_refused(family, patient):
    with pytest.raises(InputError, match=f"repair {family}: a norm stands between its MLPs' output and the stream"):
        patient(family).repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_post_norm_opt_is_refused(patient):
    with pytest.raises(InputError, match="a norm stands between"):
        patient("opt", do_layer_norm_before=False).repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_experts_are_refused(patient):
    with pytest.raises(InputError, match="block 0 has experts"):
        patient("mixtral").repairs({LAYERS: [0, 3]}, {"linear_map": {}})


def test_the_first_block_is_refused(patient):
    with pytest.raises(InputError, match="first block: there is no MLP before it"):
        patient().repairs({LAYERS: [1, 3]}, {"linear_map": {}})


def test_width_only_is_refused(patient):
    with pytest.raises(InputError, match="the plan keeps every block"):
        patient().repairs({HIDDEN: [0, 1, 2, 3]}, {"linear_map": {}})
