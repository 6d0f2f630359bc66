"""A repaired cut equals the dense model with the removed channels at zero in norms over all channels."""

import pytest
import torch
from torch import nn

from tests.pruning.surgery.loading import TOKENS
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks


KEPT = [index for index in range(32) if index % 4 in (0, 3)]
HEADS_KEPT = [[0, 1], [1, 3], [2, 3], [0, 3]]
TINY_EPS = {"rms_norm_eps": 1e-12}
FAMILIES = {
    "llama": TINY_EPS,
    "qwen3": TINY_EPS,
    "olmo2": TINY_EPS,
    "granite": TINY_EPS,
    "gemma": TINY_EPS | {"tie_word_embeddings": True},
    "gemma2": TINY_EPS | {"tie_word_embeddings": True},
    "gemma3_text": TINY_EPS | {"tie_word_embeddings": False},
    "gpt2": {"layer_norm_epsilon": 1e-12},
    "starcoder2": {"norm_epsilon": 1e-12},
}


def zero_outside(model: nn.Module, kept: list[int]) -> None:
    """Zero the channels outside `kept` in the stream, and before and after every norm over all channels."""
    mask = torch.zeros(model.config.hidden_size)
    mask[kept] = 1
    modules = model.get_decoder().named_modules()
    norms = [
        module
        for name, module in modules
        if "Norm" in type(module).__name__ and not name.endswith(("q_norm", "k_norm"))
    ]
    blocks = decoder_blocks(model)

    def mask_input(_, args, kwargs):
        return (args[0] * mask, *args[1:]), kwargs

    blocks[0].register_forward_pre_hook(mask_input, with_kwargs=True)
    for norm in norms:
        norm.register_forward_pre_hook(lambda _, args: (args[0] * mask,))
        norm.register_forward_hook(lambda norm, args, out: layer_norm(norm, args[0], kept, out) * mask)


def zero_heads(module: nn.Module, kept: list[int]) -> None:
    """Zero the input channels of a module that belong to heads outside `kept`."""
    mask = torch.zeros(4, 8)
    mask[kept] = 1
    module.register_forward_pre_hook(lambda _, args: (args[0] * mask.flatten(),))


def layer_norm(norm: nn.Module, states: torch.Tensor, kept: list[int], output: torch.Tensor) -> torch.Tensor:
    """Centre a LayerNorm's input on the kept channels; take the variance over all channels."""
    if not isinstance(norm, nn.LayerNorm):
        return output
    centred = states - states[..., kept].mean(dim=-1, keepdim=True)
    variance = centred[..., kept].square().sum(dim=-1, keepdim=True) / states.shape[-1]
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_repaired_equals_dense_with_norms_over_all_channels(family, repair_case):
    dense = repair_case(family, **FAMILIES[family])
    keep = {HIDDEN: KEPT} | ({HEADS: HEADS_KEPT} if family == "gpt2" else {})
    pruned = dense.pruned(keep, {"norm_rescale": {}})
    model = dense.model.float()
    zero_outside(model, KEPT)
    if family == "gpt2":
        for block, kept in zip(decoder_blocks(model), HEADS_KEPT, strict=True):
            zero_heads(block.attn.c_proj, kept)
    expected = model(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, expected, atol=1e-4, rtol=1e-3)
    plain = dense.pruned(keep, {}, "plain")
    assert not torch.allclose(plain(TOKENS, use_cache=False).logits, expected, atol=1e-2)


@torch.inference_mode()
def test_norms_over_heads_are_rescaled(repair_case):
    dense = repair_case("olmo2", **TINY_EPS)
    kept = [[0, 2], [1, 3], [1, 2], [0, 3]]
    pruned = dense.pruned({HEADS: kept}, {"norm_rescale": {}})
    model = dense.model.float()
    for block, heads in zip(decoder_blocks(model), kept, strict=True):
        zero_heads(block.self_attn.q_norm, heads)
        zero_heads(block.self_attn.o_proj, heads)
    expected = model(TOKENS, use_cache=False).logits
    torch.testing.assert_close(pruned(TOKENS, use_cache=False).logits, expected, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_measured_energy_gives_the_measured_factor(repair_case):
    """The factor is the root mean square of the kept channels over that of all, on normalised inputs."""
    dense = repair_case("llama")
    keep = {HIDDEN: list(range(16))}
    repair = dense.repairs(keep, {"norm_rescale": {"energy": "measured"}})[0]
    norm = dense.model.model.layers[0].input_layernorm
    inputs = []
    norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for batch in dense.calibration.batches:
        dense.model.model(**batch)
    unit = torch.cat(
        [
            states[batch["attention_mask"].bool()]
            for states, batch in zip(inputs, dense.calibration.batches, strict=True)
        ]
    )
    unit = nn.functional.normalize(unit, dim=-1)
    share = unit[:, :16].square().sum(dim=-1).mean()
    factor = repair.factors["model.layers.0.input_layernorm.weight"]
    assert factor == pytest.approx(float((2 * share) ** 0.5), rel=1e-5)
    assert repair.record == {"repair": "norm_rescale", "energy": "measured", "tokens": 480}


def test_the_provenance_records_the_repair(repair_case):
    dense = repair_case()
    dense.pruned({HIDDEN: KEPT}, {"norm_rescale": {}})
    assert read_provenance(dense.folder / "pruned").edits == [{"repair": "norm_rescale", "energy": "none"}]


def test_untied_lm_heads_are_not_scaled(repair_case):
    dense = repair_case("gemma", tie_word_embeddings=False)
    pruned = dense.pruned({HIDDEN: KEPT}, {"norm_rescale": {}})
    assert torch.equal(pruned.lm_head.weight, dense.model.lm_head.weight.float()[:, KEPT])
    assert not torch.equal(pruned.model.embed_tokens.weight, dense.model.model.embed_tokens.weight.float()[:, KEPT])


def test_norms_without_weights_raise(repair_case):
    dense = repair_case("olmo")
    with pytest.raises(InputError, match="olmo: its norms have no weights"):
        dense.repairs({HIDDEN: KEPT}, {"norm_rescale": {}})


def test_cuts_of_axes_without_norms_raise(repair_case):
    dense = repair_case()
    with pytest.raises(InputError, match="cuts no channels that a norm spans"):
        dense.repairs({NEURONS: [[0, 1]] * 4}, {"norm_rescale": {}})
