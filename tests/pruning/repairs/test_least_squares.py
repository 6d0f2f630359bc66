"""Oracle: torch.linalg.lstsq on activations gathered by hand, float64."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pruning.repairs.conftest import texts
from tests.pruning.surgery.test_checkpoint import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.observation import decoder_blocks
from trl_prune.pruning.repairs.least_squares import by_input, refitted


HEADS_KEPT = [[0, 2], [1, 3], [1, 2], [0, 3]]
NEURONS_KEPT = [list(range(layer, 48, 2))[:20] for layer in range(4)]
READERS = {"llama": ("mlp.down_proj", "self_attn.o_proj"), "gpt2": ("mlp.c_proj", "attn.c_proj")}
NARROW = 1e-10  # a ridge too small to see


@torch.inference_mode()
def inputs_of(model, module) -> torch.Tensor:
    """Return every unpadded input of a module."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for batch in texts():
        model(**batch)
    handle.remove()
    return torch.cat([states[batch["attention_mask"].bool()] for states, batch in zip(seen, texts(), strict=True)])


def spread(units: list[int], size: int) -> list[int]:
    return [unit * size + place for unit in units for place in range(size)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "starcoder2", "phi"])
@pytest.mark.parametrize("axis", [NEURONS, HEADS])
@torch.inference_mode()
def test_fit_equals_lstsq_on_gathered_activations(family, axis, patient):
    if axis == HEADS and family == "gpt2":
        pytest.skip("heads of GPT-2 go with hidden channels only")
    dense = patient(family)
    keep = {axis: NEURONS_KEPT if axis == NEURONS else HEADS_KEPT}
    repair = dense.repairs(keep, {"least_squares": {"ridge": NARROW}})[0]
    assert len(repair.names) == 4
    for name in repair.names:
        layer, module = dense.cut(keep).layer_of(name), dense.calibration.module(name)
        kept = NEURONS_KEPT[layer] if axis == NEURONS else spread(HEADS_KEPT[layer], 8)
        inputs = inputs_of(dense.model, module)
        some, wanted = inputs[:, kept], module(inputs)
        if module.bias is not None:
            some = torch.cat([some, torch.ones_like(some[:, :1])], dim=1)
        solution = torch.linalg.lstsq(some, wanted).solution
        weight = repair.tensor(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        weight = weight.mT if family != "gpt2" else weight
        torch.testing.assert_close(weight, solution[: len(kept)], atol=2e-5, rtol=1e-4)
        if module.bias is not None:
            bias = repair.tensor(name.replace("weight", "bias"), torch.empty(0, dtype=torch.float64), torch.empty(0))
            torch.testing.assert_close(bias, solution[-1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0, 100.0])
@torch.inference_mode()
def test_never_worse_than_the_plain_cut_on_calibration(ridge, patient):
    dense = patient()
    keep = {NEURONS: NEURONS_KEPT, HEADS: HEADS_KEPT}
    repair = dense.repairs(keep, {"least_squares": {"ridge": ridge}})[0]
    for layer, block in enumerate(decoder_blocks(dense.model)):
        inputs, kept = inputs_of(dense.model, block.mlp.down_proj), NEURONS_KEPT[layer]
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        weight = repair.tensor(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        wanted, plain = block.mlp.down_proj(inputs), inputs[:, kept] @ block.mlp.down_proj.weight[:, kept].mT
        cut, fitted = ((told - wanted).square().sum() for told in (plain, inputs[:, kept] @ weight.mT))
        assert fitted < cut
        told = repair.scratch.load(name, "errors") * wanted.square().sum()
        torch.testing.assert_close(told, torch.stack([cut, fitted]), rtol=1e-5, atol=0)
    assert repair.record["error"]["fitted"] < repair.record["error"]["cut"]


@torch.inference_mode()
def test_a_removed_neuron_that_had_a_twin_is_made_up_for(patient):
    """Neuron 40 + i does what neuron i does: without it the refit gives the dense output."""
    dense = patient()
    path = dense.dense_dir / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(("gate_proj.weight", "up_proj.weight")):
            tensor[40:] = tensor[:8]
    save_file(tensors, path, metadata={"format": "pt"})
    dense.model.load_state_dict({name: tensor.double() for name, tensor in tensors.items()}, strict=False)
    keep = {NEURONS: [list(range(40))] * 4}
    pruned, plain = dense.pruned(keep, {"least_squares": {"ridge": NARROW}}), dense.pruned(keep, {}, "plain")
    wanted = dense.model.float()(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, wanted, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, wanted, atol=1e-2)


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gpt2", "opt", "phi", "gpt_neox", "starcoder2", "phi3", "gemma2"]
)
@torch.inference_mode()
def test_every_axis_together_reloads_and_records(family, patient):
    dense = patient(family)
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


def test_groups_cut_alone_are_repaired(patient):
    dense = patient()
    repair = dense.repairs({GROUPS: [[0], [1], [1], [0]]}, {"least_squares": {}})[0]
    assert all(name.endswith("o_proj.weight") for name in repair.names)


def test_memory_budget_changes_the_passes_and_not_the_fit(patient):
    dense = patient()
    keep, passes = {NEURONS: NEURONS_KEPT}, []

    def counted(batches):
        passes.append(1)
        return batches

    dense.calibration.progress = counted
    once = dense.repairs(keep, {"least_squares": {}})[0]
    assert len(passes) == 1
    dense.calibration.scratch, dense.calibration.memory_bytes = dense.folder / "other", 8 * 48 * 49 * 2
    twice = dense.repairs(keep, {"least_squares": {}})[0]
    assert len(passes) == 3
    for name in once.names:
        assert torch.equal(once.scratch.load(name, "weight"), twice.scratch.load(name, "weight"))


def test_a_broken_fit_goes_on(patient):
    dense = patient()
    keep = {NEURONS: NEURONS_KEPT}
    first = dense.repairs(keep, {"least_squares": {}})[0]
    left, *gone = sorted(first.names)
    before = {name: first.scratch.load(name, "weight") for name in first.names}
    for name in gone:
        first.scratch.path(name).unlink()
    stamp = first.scratch.path(left).stat().st_mtime_ns
    again = dense.repairs(keep, {"least_squares": {}})[0]
    assert again.scratch.path(left).stat().st_mtime_ns == stamp
    assert all(torch.equal(again.scratch.load(name, "weight"), before[name]) for name in before)
    assert again.record == first.record


def test_other_plans_and_ridges_have_fits_of_their_own(patient):
    dense = patient()
    fits = [
        dense.repairs({NEURONS: kept}, {"least_squares": {"ridge": ridge}})[0].scratch.digest
        for kept, ridge in ((NEURONS_KEPT, 1e-3), (NEURONS_KEPT, 1e-2), ([list(range(20))] * 4, 1e-3))
    ]
    assert len(set(fits)) == 3


@pytest.mark.parametrize("ridge", [0, -1.0, float("nan")])
def test_bad_ridge(ridge, patient):
    with pytest.raises(InputError, match=f"least_squares.ridge is {ridge}; wanted: a number above 0"):
        patient().repairs({NEURONS: NEURONS_KEPT}, {"least_squares": {"ridge": ridge}})


def test_bad_axes(patient):
    with pytest.raises(InputError, match="least_squares.axes names 'neurons'; allowed: intermediate_size"):
        patient().repairs({NEURONS: NEURONS_KEPT}, {"least_squares": {"axes": ["neurons"]}})


def test_cuts_that_leave_nothing_to_fit_are_refused(patient):
    with pytest.raises(InputError, match="least_squares repairs cuts of .*; the plan cuts num_hidden_layers"):
        patient().repairs({LAYERS: [0, 1]}, {"least_squares": {}})


@pytest.mark.parametrize("family", ["llama", "phi3", "starcoder2", "olmo2"])
@torch.inference_mode()
def test_readers_of_hidden_channels_equal_lstsq(family, patient):
    dense = patient(family)
    kept = list(range(0, 32, 2))
    repair = dense.repairs({HIDDEN: kept}, {"least_squares": {"ridge": NARROW}})[0]
    for name in repair.names:
        module = dense.calibration.module(name)
        inputs = inputs_of(dense.model, module)
        some, wanted = (
            inputs[:, kept],
            torch.nn.functional.linear(inputs, module.weight, getattr(module, "bias", None)),
        )
        if getattr(module, "bias", None) is not None:
            some = torch.cat([some, torch.ones_like(some[:, :1])], dim=1)
        solution = torch.linalg.lstsq(some, wanted).solution.mT
        told = repair.tensor(name, torch.empty(0, dtype=torch.float64), torch.empty(0))
        torch.testing.assert_close(told, solution[:, : len(kept)], atol=2e-5, rtol=1e-4)


def test_experts_and_routers_are_left_as_cut(patient):
    dense = patient("mixtral")
    names = refitted(dense.dense_dir, dense.cut({HIDDEN: list(range(16))}))
    assert {name.split(".")[-2] for name in names} == {"q_proj", "k_proj", "v_proj"}


def test_maps_side_by_side_share_one_sum(patient):
    dense = patient()
    cut = dense.cut({HIDDEN: list(range(16)), NEURONS: NEURONS_KEPT})
    groups = by_input(refitted(dense.dense_dir, cut), cut)
    assert sorted(map(len, groups.values())) == [1] * 4 + [2] * 4 + [3] * 4
