"""Oracles: NVIDIA's operational definition in float64, one unpadded text at a time; units planted dead rank last."""

from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from tests.pruning.importance.test_experts import MIXTURES, experts_of
from tests.pruning.masking import ATTENTION_OUTPUTS, MLP_OUTPUTS, is_stream_norm
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, NEURONS
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.observation import decoder_blocks
from trl_prune.pruning.importance.scores import Scores, empty_scores, score


ROWS = sorted(FAMILIES)
DENSE_MLPS = sorted(family for family, row in FAMILIES.items() if NEURONS in row.axes)


def watched_by_hand(model) -> dict[str, list[torch.nn.Module]]:
    named = [pair for block in decoder_blocks(model) for pair in block.named_modules()]
    return {
        HEADS: [module for name, module in named if name.endswith(ATTENTION_OUTPUTS)],
        NEURONS: [module for name, module in named if name.endswith(MLP_OUTPUTS)],
        HIDDEN: [module for name, module in named if is_stream_norm(module, name)],
    }


@torch.inference_mode()
def operational(model) -> dict[str, Tensor]:
    """`abs().mean(sequence)`, squared, summed over texts, root: `(sites, channels)` by axis."""
    sums: dict[str, dict[int, Tensor]] = {axis: {} for axis in (HEADS, NEURONS, HIDDEN)}

    def add(axis: str, place: int, activation: Tensor) -> None:
        mean = activation.flatten(0, -2).double().abs().mean(dim=0)
        sums[axis][place] = sums[axis].get(place, 0) + mean.square()

    with ExitStack() as stack:
        for axis, modules in watched_by_hand(model).items():
            for place, module in enumerate(modules):
                if axis == HIDDEN:
                    hook = module.register_forward_hook(lambda _, __, out, a=axis, p=place: add(a, p, out))
                else:
                    hook = module.register_forward_pre_hook(lambda _, args, a=axis, p=place: add(a, p, args[0]))
                stack.callback(hook.remove)
        for length in LENGTHS:
            model(**batch((length,)), use_cache=False)
    return {axis: torch.stack([each[place] for place in sorted(each)]).sqrt() for axis, each in sums.items() if each}


@pytest.mark.parametrize("family", ROWS)
def test_scores_are_the_operational_definition_for_every_axis(family):
    model = tiny_model(family)
    told, wanted = score(model, [batch()]), operational(model)
    close = {"rtol": 1e-4, "atol": 1e-6}
    heads = wanted[HEADS].unflatten(-1, (4, -1)).norm(dim=-1)
    torch.testing.assert_close(told.heads(), heads, **close)
    torch.testing.assert_close(told.hidden(), wanted[HIDDEN].sum(dim=0), **close)
    if NEURONS in told.sizes:
        torch.testing.assert_close(told.neurons(), wanted[NEURONS], **close)
    if GROUPS in told.sizes:
        groups = heads.unflatten(-1, (told.sizes[GROUPS], -1)).norm(dim=-1)
        torch.testing.assert_close(told.groups(), groups, **close)


@pytest.mark.parametrize("family", ROWS)
def test_energy_is_that_of_the_stream_before_and_after_every_block(family):
    model = tiny_model(family)
    told, wanted, states = score(model, [batch()]).energy(), torch.zeros(32, dtype=torch.float64), []
    blocks = decoder_blocks(model)
    handles = [block.register_forward_hook(lambda _, __, out: states.append(out)) for block in blocks]
    with torch.inference_mode():
        for length in LENGTHS:
            first = model(**batch((length,)), output_hidden_states=True, use_cache=False).hidden_states[0]
            outputs = [out if isinstance(out, Tensor) else out[0] for out in states]
            wanted += sum(state.double().square().sum(dim=(0, 1)) for state in (first, *outputs))
            states.clear()
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(told, wanted, rtol=1e-4, atol=1e-6)


def close(told: Scores, wanted: Scores, why: str) -> None:
    assert told.texts == wanted.texts, why
    torch.testing.assert_close(told.layers.cosine, wanted.layers.cosine, atol=1e-4, rtol=1e-6, msg=why)
    for axis, sums in wanted.channels.items():
        scale = sums.abs().amax(dim=-1, keepdim=True)
        assert ((told.channels[axis] - sums).abs() <= 1e-4 * scale).all(), why
    for one, other in zip(told.experts, wanted.experts, strict=True):
        assert other is None or (one - other).abs().max() <= 1e-4 * other.abs().max(), why


@pytest.mark.parametrize("family", ROWS)
def test_padding_and_batch_split_change_nothing(family):
    model = tiny_model(family)
    whole = score(model, [batch()])
    variants = {
        "one by one": [batch((length,)) for length in LENGTHS],
        "in two, more padding": [batch(LENGTHS[:1], width=21), batch(LENGTHS[1:], width=30)],
        "left padding": [batch(side="left", width=23)],
    }
    for name, batches in variants.items():
        close(score(model, batches), whole, name)


@pytest.mark.parametrize("family", ROWS)
def test_dead_units_rank_last(family):
    """Head 2, neuron 5 and hidden channel 7 are silenced where the next matrix would read them."""
    model = tiny_model(family)
    dead = {HEADS: slice(2 * 8, 3 * 8), NEURONS: slice(5, 6), HIDDEN: slice(7, 8)}

    def silenced(activation: Tensor, axis: str) -> Tensor:
        activation = activation.clone()
        width = activation.shape[-1] // 4 if axis == HEADS else None
        activation[..., slice(2 * width, 3 * width) if width else dead[axis]] = 0
        return activation

    for axis, modules in watched_by_hand(model).items():
        for module in modules:
            if axis == HIDDEN:
                module.register_forward_hook(lambda _, __, out, a=axis: silenced(out, a))
            else:
                module.register_forward_pre_hook(lambda _, args, a=axis: (silenced(args[0], a), *args[1:]))
    told = score(model, [batch()])
    assert told.heads().argmin(dim=1).tolist() == [2] * 4
    assert int(told.hidden().argmin()) == 7
    if NEURONS in told.sizes:
        assert (told.neurons()[:, 5] == 0).all()


@pytest.mark.parametrize("family", MIXTURES)
def test_a_dead_expert_ranks_last(family):
    model = tiny_model(family)
    for module in experts_of(model).values():
        for name, weight in module.named_parameters():
            if name.startswith("down_proj"):
                weight.data[1] = 0
    told = score(model, [batch()])
    for weighted in (False, True):
        norms = told.expert_norms(weighted)[list(experts_of(model))]
        assert (norms[:, 1] == 0).all()
        assert (norms > 0).sum() > len(norms)


def test_the_head_never_runs():
    model = tiny_model("llama")
    model.lm_head.forward = None
    score(model, [batch()])


@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "opt"])
def test_resumed_from_a_file_equals_unbroken(family, tmp_path):
    model, batches = tiny_model(family), [batch((length,)) for length in LENGTHS]
    whole = score(model, batches)
    begun = empty_scores(model, {"model": "abc"})
    score(model, batches[:2], scores=begun, after_batch=lambda scores: scores.save(tmp_path / "partial"))
    partial = Scores.load(tmp_path / "partial")
    assert (partial.batches, partial.texts, partial.facts) == (2, 2, {"model": "abc"})
    resumed = score(model, batches[partial.batches :], scores=partial)
    assert torch.equal(resumed.layers.angle, whole.layers.angle)
    assert all(torch.equal(resumed.channels[axis], whole.channels[axis]) for axis in whole.channels)
    if EXPERTS in whole.sizes:
        assert torch.equal(resumed.expert_norms(), whole.expert_norms())


def test_equal_scores_are_equal_files_and_distances_are_read_alone(tmp_path):
    told = score(tiny_model("qwen3_moe"), [batch()])
    for name in range(4):
        told.save(tmp_path / str(name))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert torch.equal(LayerScores.load(tmp_path / "0").angle, told.layers.angle)


def test_a_file_of_distances_alone_is_refused(tmp_path):
    LayerScores.empty(3).save(tmp_path / "old")
    with pytest.raises(InputError, match="score the model anew"):
        Scores.load(tmp_path / "old")


def test_an_axis_that_was_not_scored_is_named():
    with pytest.raises(InputError, match="nothing of intermediate_size"):
        score(tiny_model("mixtral"), [batch()]).neurons()
