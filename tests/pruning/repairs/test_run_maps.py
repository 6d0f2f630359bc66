"""Maps in a model in memory against those that `linear_map` folds into the checkpoint."""

import gc
import weakref

import pytest
import torch

from tests.families import family_params
from tests.pruning.repairs.conftest import texts
from tests.pruning.surgery.loading import TOKENS
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.effects import EFFECTS
from trl_prune.pruning.choosing.losses import MeasuredLosses
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.repairs import applicable_repairs
from trl_prune.pruning.repairs.run_maps import RunMaps, states_bytes


RIDGE = 0.1


def run_maps(dense):
    return RunMaps(dense.dense_dir, dense.cut({LAYERS: [0]}), dense.calibration, RIDGE)


@torch.inference_mode()
def replaced_logits(dense, maps, removed):
    """Return the logits of the dense model without some blocks and with maps in their place."""
    with layers_skipped(dense.model, removed), maps.in_place_of(removed):
        return dense.model(TOKENS, use_cache=False).logits.float()


@pytest.mark.parametrize("family", family_params(["llama", "gpt2", "granite", "gemma", "gpt_neox", "phi"]))
@pytest.mark.parametrize("removed", [(1, 2), (3,)])
@torch.inference_mode()
def test_of_a_single_run_it_is_the_map_of_the_checkpoint(family, removed, repair_case):
    changes = {"residual_multiplier": 0.5} if family == "granite" else {}
    dense = repair_case(family, **changes)
    before = dense.model(TOKENS, use_cache=False).logits
    maps = run_maps(dense)
    keep = {LAYERS: [layer for layer in range(4) if layer not in removed]}
    pruned = dense.pruned(keep, {"linear_map": {"ridge": RIDGE}})
    expected = pruned(TOKENS, use_cache=False).logits
    torch.testing.assert_close(replaced_logits(dense, maps, removed), expected, atol=1e-4, rtol=1e-4)
    plain = dense.pruned(keep, {}, "plain")
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, expected, atol=1e-3)
    torch.testing.assert_close(dense.model(TOKENS, use_cache=False).logits, before)  # the model is as it was


@torch.inference_mode()
def test_the_lowest_of_several_runs_has_the_map_of_the_checkpoint_and_others_that_of_the_dense_model(repair_case):
    dense = repair_case(num_hidden_layers=6)
    maps = run_maps(dense)
    lower, upper = (
        dense.repairs({LAYERS: keep}, {"linear_map": {}})[0] for keep in ([0, 2, 3, 4, 5], [0, 1, 2, 3, 5])
    )
    matrices = [repair.fits.load(next(iter(repair.names)), "map") for repair in (lower, upper)]
    name = "model.layers.{}.mlp.down_proj"
    hooks = [
        dense.model.get_submodule(name.format(layer)).register_forward_hook(
            lambda _, __, output, matrix=matrix: output @ matrix.to(output).mT
        )
        for layer, matrix in zip((0, 3), matrices, strict=True)
    ]
    with layers_skipped(dense.model, [1, 4]):
        expected = dense.model(TOKENS, use_cache=False).logits.float()
    [hook.remove() for hook in hooks]
    torch.testing.assert_close(replaced_logits(dense, maps, (1, 4)), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_run_of_the_first_blocks_is_a_plain_cut(repair_case):
    dense = repair_case()
    maps = run_maps(dense)
    with layers_skipped(dense.model, [0, 1]):
        expected = dense.model(TOKENS, use_cache=False).logits.float()
    torch.testing.assert_close(replaced_logits(dense, maps, (0, 1)), expected)
    repaired = dense.pruned({LAYERS: [1, 3]}, {"linear_map": {"ridge": RIDGE}})  # the run of block 2 has a map
    one = dense.pruned({LAYERS: [1, 3]}, {}, "plain")
    logits = [model(TOKENS, use_cache=False).logits for model in (repaired, one)]
    assert not torch.allclose(*logits, atol=1e-3)


@pytest.mark.parametrize("effect", sorted(EFFECTS))
@torch.inference_mode()
def test_an_effect_as_repaired_is_that_of_the_repaired_checkpoint(effect, repair_case):
    dense = repair_case(num_hidden_layers=6)
    maps, batches = run_maps(dense), texts(rows=4, length=12)
    choices = [(2,), (1, 2), (3, 4, 5), (2, 3), (), (0,), (4, 5), (1,)]
    dense.model.float()
    losses = MeasuredLosses(EFFECTS[effect](dense.model, batches, maps.in_place_of))(choices)
    plain = MeasuredLosses(EFFECTS[effect](dense.model, batches))(choices)
    for number, (choice, loss) in enumerate(zip(choices, losses, strict=True)):
        keep = {LAYERS: [layer for layer in range(6) if layer not in choice]}
        is_mapped = "linear_map" in applicable_repairs(dense.dense_dir, dense.cut(keep))
        repairs = {"linear_map": {"ridge": RIDGE}} if is_mapped else {}
        pruned = dense.pruned(keep, repairs, f"pruned{number}")
        expected = _loss(effect, dense.model, pruned, batches)
        assert loss == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert not repairs or effect == "agreement" or loss != pytest.approx(plain[number], rel=1e-4)


@torch.inference_mode()
def _loss(effect, dense, pruned, batches):
    """Return an effect's loss from whole logits."""
    total, count = 0.0, 0
    for batch in batches:
        mask = batch["attention_mask"].bool()
        wanted, found = (model(**batch, use_cache=False).logits.double().log_softmax(-1) for model in (dense, pruned))
        if effect == "perplexity":
            mask = mask & torch.nn.functional.pad(mask[:, 1:], (0, 1))
            labels = batch["input_ids"].roll(-1, dims=1)
            values = -found.gather(-1, labels[..., None])[..., 0]
        elif effect == "kl":
            values = (wanted.exp() * (wanted - found)).sum(-1)
        else:
            values = (wanted.argmax(-1) != found.argmax(-1)).double()
        total, count = total + values[mask].sum().item(), count + int(mask.sum())
    return total / count


@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
def test_a_model_with_blocks_that_take_no_map_is_refused(family, repair_case):
    with pytest.raises(InputError, match=f"linear_map cannot repair {family}"):
        run_maps(repair_case(family))


def test_nothing_outlives_the_maps(repair_case):
    maps = run_maps(repair_case())
    gc.disable()
    try:
        reference = weakref.ref(maps._map.__wrapped__.__self__)
        del maps
        assert reference() is None  # the states are as large as the model
    finally:
        gc.enable()


def test_the_states_take_as_many_bytes_as_counted(repair_case):
    dense = repair_case()
    maps = run_maps(dense)
    fits = maps._map.__wrapped__.__self__
    held = [*fits.outputs.values(), *fits.stream.values()]
    counted = states_bytes(dense.calibration.tokens, 4, 32, 8)
    assert sum(tensor.nbytes for tensor in held) == counted
