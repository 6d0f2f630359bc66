"""Reference: torch.linalg.lstsq on activations collected with plain hooks, float64."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pruning.repairs.conftest import texts
from tests.pruning.surgery.loading import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.repairs.least_squares import group_by_input, weights_to_fit


HEADS_KEPT = [[0, 2], [1, 3], [1, 2], [0, 3]]
NEURONS_KEPT = [list(range(layer, 48, 2))[:20] for layer in range(4)]
READERS = {"llama": ("mlp.down_proj", "self_attn.o_proj"), "gpt2": ("mlp.c_proj", "attn.c_proj")}
SMALL_RIDGE = 1e-10  # without visible effect


@torch.inference_mode()
def inputs_of(model, module) -> torch.Tensor:
    """Return every unpadded input of a module."""
    inputs = []
    handle = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for batch in texts():
        model(**batch)
    handle.remove()
    return torch.cat([states[batch["attention_mask"].bool()] for states, batch in zip(inputs, texts(), strict=True)])


def channels_of(units: list[int], size: int) -> list[int]:
    return [unit * size + offset for unit in units for offset in range(size)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "starcoder2", "phi"])
@pytest.mark.parametrize("axis", [NEURONS, HEADS])
@torch.inference_mode()
def test_fit_equals_lstsq_on_collected_activations(family, axis, repair_case):
    if axis == HEADS and family == "gpt2":
        pytest.skip("heads of GPT-2 are cut with hidden channels only")
    dense = repair_case(family)
    keep = {axis: NEURONS_KEPT if axis == NEURONS else HEADS_KEPT}
    repair = dense.repairs(keep, {"least_squares": {"ridge": SMALL_RIDGE}})[0]
    assert len(repair.names) == 4
    for name in repair.names:
        layer, module = dense.cut(keep).layer_of(name), dense.calibration.module(name)
        kept = NEURONS_KEPT[layer] if axis == NEURONS else channels_of(HEADS_KEPT[layer], 8)
        inputs = inputs_of(dense.model, module)
        kept_inputs, outputs = inputs[:, kept], module(inputs)
        if module.bias is not None:
            kept_inputs = torch.cat([kept_inputs, torch.ones_like(kept_inputs[:, :1])], dim=1)
        solution = torch.linalg.lstsq(kept_inputs, outputs).solution
        weight = repair.apply(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        weight = weight.mT if family != "gpt2" else weight
        torch.testing.assert_close(weight, solution[: len(kept)], atol=2e-5, rtol=1e-4)
        if module.bias is not None:
            bias = repair.apply(name.replace("weight", "bias"), torch.empty(0, dtype=torch.float64), torch.empty(0))
            torch.testing.assert_close(bias, solution[-1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0, 100.0])
@torch.inference_mode()
def test_never_worse_than_the_plain_cut_on_calibration(ridge, repair_case):
    dense = repair_case()
    keep = {NEURONS: NEURONS_KEPT, HEADS: HEADS_KEPT}
    repair = dense.repairs(keep, {"least_squares": {"ridge": ridge}})[0]
    for layer, block in enumerate(decoder_blocks(dense.model)):
        inputs, kept = inputs_of(dense.model, block.mlp.down_proj), NEURONS_KEPT[layer]
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        weight = repair.apply(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        dense_output = block.mlp.down_proj(inputs)
        cut_output, fitted_output = (
            inputs[:, kept] @ matrix.mT for matrix in (block.mlp.down_proj.weight[:, kept], weight)
        )
        cut, fitted = ((output - dense_output).square().sum() for output in (cut_output, fitted_output))
        assert fitted < cut
        errors = repair.fits.load(name, "errors") * dense_output.square().sum()
        torch.testing.assert_close(errors, torch.stack([cut, fitted]), rtol=1e-5, atol=0)
    assert repair.record["error"]["fitted"] < repair.record["error"]["cut"]


@torch.inference_mode()
def test_removing_duplicate_neurons_loses_nothing(repair_case):
    """Neuron 40 + i is a copy of neuron i: without it the fit gives the dense output."""
    dense = repair_case()
    path = dense.dense_dir / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(("gate_proj.weight", "up_proj.weight")):
            tensor[40:] = tensor[:8]
    save_file(tensors, path, metadata={"format": "pt"})
    dense.model.load_state_dict({name: tensor.double() for name, tensor in tensors.items()}, strict=False)
    keep = {NEURONS: [list(range(40))] * 4}
    pruned, plain = dense.pruned(keep, {"least_squares": {"ridge": SMALL_RIDGE}}), dense.pruned(keep, {}, "plain")
    dense_logits = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, dense_logits, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, dense_logits, atol=1e-2)


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gpt2", "opt", "phi", "gpt_neox", "starcoder2", "phi3", "gemma2"]
)
@torch.inference_mode()
def test_all_axes_together_load_and_are_recorded(family, repair_case):
    dense = repair_case(family)
    grouped = family not in ("gpt2", "opt", "gpt_neox")
    keep = {NEURONS: NEURONS_KEPT, HEADS: HEADS_KEPT if grouped else [[0, 1]] * 4, HIDDEN: list(range(16))}
    keep |= {LAYERS: [0, 2, 3]}
    pruned = dense.pruned(keep, {"least_squares": {}, "norm_rescale": {}})
    assert pruned(TOKENS, use_cache=False).logits.isfinite().all()
    edits = read_provenance(dense.folder / "pruned").edits
    assert [edit["repair"] for edit in edits] == ["least_squares", "norm_rescale"]
    assert edits[0]["tokens"] == 480
    assert edits[0]["ridge"] == 0.1
    assert 0 <= edits[0]["error"]["fitted"] < edits[0]["error"]["cut"]


def test_cuts_of_kv_heads_only_are_repaired(repair_case):
    dense = repair_case()
    repair = dense.repairs({KV_HEADS: [[0], [1], [1], [0]]}, {"least_squares": {}})[0]
    assert all(name.endswith("o_proj.weight") for name in repair.names)


def test_memory_limit_changes_the_number_of_passes_but_not_the_fit(repair_case):
    dense = repair_case()
    keep, passes = {NEURONS: NEURONS_KEPT}, []

    def count_pass(batches):
        passes.append(1)
        return batches

    dense.calibration.progress = count_pass
    one_pass = dense.repairs(keep, {"least_squares": {}})[0]
    assert len(passes) == 1
    dense.calibration.cache_dir, dense.calibration.memory_bytes = dense.folder / "other", 8 * 48 * 49 * 2
    two_passes = dense.repairs(keep, {"least_squares": {}})[0]
    assert len(passes) == 3
    for name in one_pass.names:
        assert torch.equal(one_pass.fits.load(name, "weight"), two_passes.fits.load(name, "weight"))


def test_an_interrupted_fit_resumes(repair_case):
    dense = repair_case()
    keep = {NEURONS: NEURONS_KEPT}
    first = dense.repairs(keep, {"least_squares": {}})[0]
    fitted, *missing = sorted(first.names)
    weights = {name: first.fits.load(name, "weight") for name in first.names}
    for name in missing:
        first.fits.path(name).unlink()
    modified = first.fits.path(fitted).stat().st_mtime_ns
    resumed = dense.repairs(keep, {"least_squares": {}})[0]
    assert resumed.fits.path(fitted).stat().st_mtime_ns == modified
    assert all(torch.equal(resumed.fits.load(name, "weight"), weights[name]) for name in weights)
    assert resumed.record == first.record


def test_other_plans_and_ridges_have_separate_fits(repair_case):
    dense = repair_case()
    digests = [
        dense.repairs({NEURONS: kept}, {"least_squares": {"ridge": ridge}})[0].fits.digest
        for kept, ridge in ((NEURONS_KEPT, 1e-3), (NEURONS_KEPT, 1e-2), ([list(range(20))] * 4, 1e-3))
    ]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("ridge", [0, -1.0, float("nan")])
def test_an_invalid_ridge_raises(ridge, repair_case):
    with pytest.raises(InputError, match=f"least_squares.ridge is {ridge}; wanted: a number above 0"):
        repair_case().repairs({NEURONS: NEURONS_KEPT}, {"least_squares": {"ridge": ridge}})


def test_invalid_axes_raise(repair_case):
    with pytest.raises(InputError, match="least_squares.axes names 'neurons'; allowed: intermediate_size"):
        repair_case().repairs({NEURONS: NEURONS_KEPT}, {"least_squares": {"axes": ["neurons"]}})


def test_cuts_without_anything_to_fit_raise(repair_case):
    with pytest.raises(InputError, match="least_squares repairs cuts of .*; the plan cuts num_hidden_layers"):
        repair_case().repairs({LAYERS: [0, 1]}, {"least_squares": {}})


@pytest.mark.parametrize("family", ["llama", "phi3", "starcoder2", "olmo2"])
@torch.inference_mode()
def test_readers_of_hidden_channels_equal_lstsq(family, repair_case):
    dense = repair_case(family)
    kept = list(range(0, 32, 2))
    repair = dense.repairs({HIDDEN: kept}, {"least_squares": {"ridge": SMALL_RIDGE}})[0]
    for name in repair.names:
        module = dense.calibration.module(name)
        inputs = inputs_of(dense.model, module)
        bias = getattr(module, "bias", None)
        kept_inputs, outputs = inputs[:, kept], torch.nn.functional.linear(inputs, module.weight, bias)
        if bias is not None:
            kept_inputs = torch.cat([kept_inputs, torch.ones_like(kept_inputs[:, :1])], dim=1)
        solution = torch.linalg.lstsq(kept_inputs, outputs).solution.mT
        weight = repair.apply(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        torch.testing.assert_close(weight, solution[:, : len(kept)], atol=2e-5, rtol=1e-4)


def test_experts_and_routers_are_not_fitted(repair_case):
    dense = repair_case("mixtral")
    names = weights_to_fit(dense.dense_dir, dense.cut({HIDDEN: list(range(16))}))
    assert {name.split(".")[-2] for name in names} == {"q_proj", "k_proj", "v_proj"}


def test_weights_with_the_same_input_share_its_moments(repair_case):
    dense = repair_case()
    cut = dense.cut({HIDDEN: list(range(16)), NEURONS: NEURONS_KEPT})
    groups = group_by_input(weights_to_fit(dense.dense_dir, cut), cut)
    assert sorted(map(len, groups.values())) == [1] * 4 + [2] * 4 + [3] * 4
