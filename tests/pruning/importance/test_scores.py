"""Reference: NVIDIA's implementation of the scores in float64, one unpadded text at a time; dead units rank last."""

from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from tests.pruning.importance.test_experts import MIXTURES, experts_of
from tests.pruning.masking import unit_modules
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, HEADS, HIDDEN, KV_HEADS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores, empty_scores, score


DENSE_MLPS = sorted(family for family, row in FAMILIES.items() if NEURONS in row.axes)


@torch.inference_mode()
def reference(model) -> dict[str, Tensor]:
    """`abs().mean(sequence)`, squared, summed over texts, root: `(sites, channels)` by axis."""
    sums: dict[str, dict[int, Tensor]] = {axis: {} for axis in (HEADS, NEURONS, HIDDEN)}

    def add(axis: str, index: int, activation: Tensor) -> None:
        mean = activation.flatten(0, -2).double().abs().mean(dim=0)
        sums[axis][index] = sums[axis].get(index, 0) + mean.square()

    with ExitStack() as stack:
        for axis, modules in unit_modules(model).items():
            for index, module in enumerate(modules):
                if axis == HIDDEN:
                    hook = module.register_forward_hook(lambda _, __, out, a=axis, i=index: add(a, i, out))
                else:
                    hook = module.register_forward_pre_hook(lambda _, args, a=axis, i=index: add(a, i, args[0]))
                stack.callback(hook.remove)
        for length in LENGTHS:
            model(**batch((length,)), use_cache=False)
    return {
        axis: torch.stack([means[index] for index in sorted(means)]).sqrt() for axis, means in sums.items() if means
    }


@pytest.mark.parametrize("family", family_params())
def test_scores_of_every_axis_equal_the_reference(family):
    model = tiny_model(family)
    scores, expected = score(model, [batch()]), reference(model)
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    heads = expected[HEADS].unflatten(-1, (4, -1)).norm(dim=-1)
    torch.testing.assert_close(scores.heads(), heads, **tolerance)
    torch.testing.assert_close(scores.hidden(), expected[HIDDEN].sum(dim=0), **tolerance)
    if NEURONS in scores.sizes:
        neurons = scores.neurons()
        torch.testing.assert_close(neurons[neurons.any(dim=1)], expected[NEURONS], **tolerance)
    if KV_HEADS in scores.sizes:
        kv_heads = heads.unflatten(-1, (scores.sizes[KV_HEADS], -1)).norm(dim=-1)
        torch.testing.assert_close(scores.kv_heads(), kv_heads, **tolerance)


@pytest.mark.parametrize("family", family_params())
def test_energy_sums_the_stream_before_and_after_every_block(family):
    model = tiny_model(family)
    energy, expected, states = score(model, [batch()]).energy(), torch.zeros(32, dtype=torch.float64), []
    blocks = decoder_blocks(model)
    handles = [block.register_forward_hook(lambda _, __, out: states.append(out)) for block in blocks]
    with torch.inference_mode():
        for length in LENGTHS:
            first = model(**batch((length,)), output_hidden_states=True, use_cache=False).hidden_states[0]
            outputs = [out if isinstance(out, Tensor) else out[0] for out in states]
            expected += sum(state.double().square().sum(dim=(0, 1)) for state in (first, *outputs))
            states.clear()
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(energy, expected, rtol=1e-4, atol=1e-6)


def assert_close(scores: Scores, expected: Scores, variant: str) -> None:
    assert scores.num_texts == expected.num_texts, variant
    torch.testing.assert_close(scores.layers.cosine, expected.layers.cosine, atol=1e-4, rtol=1e-6, msg=variant)
    for axis, sums in expected.channels.items():
        scale = sums.abs().amax(dim=-1, keepdim=True)
        assert ((scores.channels[axis] - sums).abs() <= 1e-4 * scale).all(), variant
    for actual, sums in zip(scores.experts, expected.experts, strict=True):
        assert sums is None or (actual - sums).abs().max() <= 1e-4 * sums.abs().max(), variant


@pytest.mark.parametrize("family", family_params())
def test_padding_and_batch_split_change_nothing(family):
    model = tiny_model(family)
    full = score(model, [batch()])
    variants = {
        "one by one": [batch((length,)) for length in LENGTHS],
        "in two, more padding": [batch(LENGTHS[:1], width=21), batch(LENGTHS[1:], width=30)],
        "left padding": [batch(side="left", width=23)],
    }
    for name, batches in variants.items():
        assert_close(score(model, batches), full, name)


@pytest.mark.parametrize("family", family_params())
def test_dead_units_rank_last(family):
    """Head 2, neuron 5 and hidden channel 7 are set to zero where the next matrix reads them."""
    model = tiny_model(family)
    dead = {HEADS: slice(2 * 8, 3 * 8), NEURONS: slice(5, 6), HIDDEN: slice(7, 8)}

    def zeroed(activation: Tensor, axis: str) -> Tensor:
        activation = activation.clone()
        width = activation.shape[-1] // 4 if axis == HEADS else None
        activation[..., slice(2 * width, 3 * width) if width else dead[axis]] = 0
        return activation

    for axis, modules in unit_modules(model).items():
        for module in modules:
            if axis == HIDDEN:
                module.register_forward_hook(lambda _, __, out, a=axis: zeroed(out, a))
            else:
                module.register_forward_pre_hook(lambda _, args, a=axis: (zeroed(args[0], a), *args[1:]))
    scores = score(model, [batch()])
    assert scores.heads().argmin(dim=1).tolist() == [2] * 4
    assert int(scores.hidden().argmin()) == 7
    if NEURONS in scores.sizes:
        assert (scores.neurons()[:, 5] == 0).all()


@pytest.mark.parametrize("family", family_params(MIXTURES))
def test_a_dead_expert_ranks_last(family):
    model = tiny_model(family)
    for module in experts_of(model).values():
        for name, weight in module.named_parameters():
            if name.startswith("down_proj"):
                weight.data[1] = 0
    scores = score(model, [batch()])
    for by in ("norm", "reap", "output"):
        norms = scores.expert_importance(by)[list(experts_of(model))]
        assert (norms[:, 1] == 0).all()
        assert (norms > 0).sum() > len(norms)


def test_the_lm_head_does_not_run():
    model = tiny_model("llama")
    model.lm_head.forward = None
    score(model, [batch()])


@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "opt"])
def test_scores_resumed_from_a_file_equal_uninterrupted_ones(family, tmp_path):
    model, batches = tiny_model(family), [batch((length,)) for length in LENGTHS]
    full = score(model, batches)
    empty = empty_scores(model, {"model": "abc"})
    score(model, batches[:2], scores=empty, after_batch=lambda scores: scores.save(tmp_path / "partial"))
    partial = Scores.load(tmp_path / "partial")
    assert (partial.num_batches, partial.num_texts, partial.metadata) == (2, 2, {"model": "abc"})
    resumed = score(model, batches[partial.num_batches :], scores=partial)
    assert torch.equal(resumed.layers.angle, full.layers.angle)
    assert all(torch.equal(resumed.channels[axis], full.channels[axis]) for axis in full.channels)
    if EXPERTS in full.sizes:
        assert torch.equal(resumed.expert_importance(), full.expert_importance())


def test_equal_scores_are_equal_files_and_layer_scores_load_from_them(tmp_path):
    scores = score(tiny_model("qwen3_moe"), [batch()])
    for name in range(4):
        scores.save(tmp_path / str(name))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert torch.equal(LayerScores.load(tmp_path / "0").angle, scores.layers.angle)


def test_loading_a_file_of_layer_scores_only_raises(tmp_path):
    save_file({"angle": torch.zeros(4, 4)}, tmp_path / "old")
    with pytest.raises(InputError, match="score the model again"):
        Scores.load(tmp_path / "old")


def test_error_on_an_axis_that_was_not_scored_names_it():
    with pytest.raises(InputError, match="the scores have no intermediate_size"):
        score(tiny_model("mixtral"), [batch()]).neurons()
