"""Reference: each expert applied to the tokens routed to it, one at a time."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from trl_prune.pruning.families import EXPERTS, FAMILIES
from trl_prune.pruning.importance.experts import IMPLEMENTATION, NORMS, TOKENS, WEIGHTED, ExpertObserver
from trl_prune.pruning.importance.forward import observe
from trl_prune.pruning.importance.hooks import decoder_blocks


MIXTURES = sorted(family for family, row in FAMILIES.items() if EXPERTS in row.axes)


def experts_of(model) -> dict[int, torch.nn.Module]:
    return {
        layer: module
        for layer, block in enumerate(decoder_blocks(model))
        for name, module in block.named_modules()
        if name.endswith(".experts")
    }


def output(module: torch.nn.Module, expert: int, state: torch.Tensor) -> torch.Tensor:
    """Apply one expert's weights to one token."""
    up, down = module.gate_up_proj[expert], module.down_proj[expert]
    if module.is_transposed:
        gated = module._apply_gate((state @ up + module.gate_up_proj_bias[expert])[None])[0]
        return gated @ down + module.down_proj_bias[expert]
    gate, value = (up @ state).chunk(2)
    return down @ (module.act_fn(gate) * value)


@torch.inference_mode()
def reference(model) -> list[torch.Tensor | None]:
    sums = [None] * 4
    routed = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: routed.__setitem__(layer, args))
        for layer, module in experts_of(model).items()
    ]
    for length in LENGTHS:  # one text at a time, without padding
        model(**batch((length,)))
        for layer, (states, top_k_index, top_k_weights) in routed.items():
            sums[layer] = torch.zeros(3, 4, dtype=torch.float64) if sums[layer] is None else sums[layer]
            for state, experts, weights in zip(states, top_k_index, top_k_weights, strict=True):
                for expert, weight in zip(experts.tolist(), weights.tolist(), strict=True):
                    norm = output(experts_of(model)[layer], expert, state).norm().item()
                    sums[layer][:, expert] += torch.tensor([norm, norm * weight, 1])
    for handle in handles:
        handle.remove()
    return sums


@pytest.mark.parametrize("family", family_params(MIXTURES))
def test_norms_equal_those_of_each_expert_applied_alone(family):
    model = tiny_model(family)
    observer = ExpertObserver(4)
    observe(model, [batch()], [observer])
    for sums, expected in zip(observer.sums, reference(model), strict=True):
        assert (sums is None) == (expected is None)
        if sums is not None:
            torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
            assert sums[TOKENS].sum() == sum(LENGTHS) * model.config.num_experts_per_tok
            assert (sums[WEIGHTED] <= sums[NORMS] * 3).all()  # router weights are below 1, scaled in some families


@torch.inference_mode()
@pytest.mark.parametrize("original", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", family_params(MIXTURES))
def test_outputs_do_not_change_and_the_implementation_is_restored(family, original):
    model = tiny_model(family)
    model.set_experts_implementation(original)
    expected = model(**batch((9,))).logits
    observer = ExpertObserver(4)
    with observer.attach(model):
        assert model.config._experts_implementation == IMPLEMENTATION
        observer.before_forward(batch((9,))["attention_mask"])
        logits = model(**batch((9,))).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert model.config._experts_implementation == original
    assert torch.equal(model(**batch((9,))).logits, expected)
    with pytest.raises(ValueError, match=IMPLEMENTATION):
        model.set_experts_implementation(IMPLEMENTATION)
