"""Oracle: each expert run by hand on the tokens that the router sent it."""

import pytest
import torch

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from trl_prune.pruning.families import EXPERTS, FAMILIES
from trl_prune.pruning.importance.experts import IMPLEMENTATION, NORMS, TOKENS, WEIGHTED, ExpertObserver
from trl_prune.pruning.importance.observation import decoder_blocks, observe


MIXTURES = sorted(family for family, row in FAMILIES.items() if EXPERTS in row.axes)


def experts_of(model) -> dict[int, torch.nn.Module]:
    return {
        layer: module
        for layer, block in enumerate(decoder_blocks(model))
        for name, module in block.named_modules()
        if name.endswith(".experts")
    }


def output(module: torch.nn.Module, expert: int, state: torch.Tensor) -> torch.Tensor:
    """One expert on one token, by its weights alone."""
    up, down = module.gate_up_proj[expert], module.down_proj[expert]
    if module.is_transposed:
        gated = module._apply_gate((state @ up + module.gate_up_proj_bias[expert])[None])[0]
        return gated @ down + module.down_proj_bias[expert]
    gate, value = (up @ state).chunk(2)
    return down @ (module.act_fn(gate) * value)


@torch.inference_mode()
def by_hand(model) -> list[torch.Tensor | None]:
    sums = [None] * 4
    routed = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: routed.__setitem__(layer, args))
        for layer, module in experts_of(model).items()
    ]
    for length in LENGTHS:  # one text at a time, without padding
        model(**batch((length,)))
        for layer, (states, chosen, weights) in routed.items():
            sums[layer] = torch.zeros(3, 4, dtype=torch.float64) if sums[layer] is None else sums[layer]
            for state, experts, shares in zip(states, chosen, weights, strict=True):
                for expert, share in zip(experts.tolist(), shares.tolist(), strict=True):
                    norm = output(experts_of(model)[layer], expert, state).norm().item()
                    sums[layer][:, expert] += torch.tensor([norm, norm * share, 1])
    for handle in handles:
        handle.remove()
    return sums


@pytest.mark.parametrize("family", MIXTURES)
def test_norms_are_those_of_each_expert_run_by_hand(family):
    model = tiny_model(family)
    observer = ExpertObserver(4)
    observe(model, [batch()], [observer])
    for told, wanted in zip(observer.sums, by_hand(model), strict=True):
        assert (told is None) == (wanted is None)
        if told is not None:
            torch.testing.assert_close(told, wanted, rtol=1e-4, atol=1e-4)
            assert told[TOKENS].sum() == sum(LENGTHS) * model.config.num_experts_per_tok
            assert (told[WEIGHTED] <= told[NORMS] * 3).all()  # shares are below 1, times a scale in some families


@torch.inference_mode()
@pytest.mark.parametrize("usual", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", MIXTURES)
def test_the_model_computes_what_it_did_and_gets_its_implementation_back(family, usual):
    model = tiny_model(family)
    model.set_experts_implementation(usual)
    wanted = model(**batch((9,))).logits
    observer = ExpertObserver(4)
    with observer.attached(model):
        assert model.config._experts_implementation == IMPLEMENTATION
        observer.before(batch((9,))["attention_mask"])
        told = model(**batch((9,))).logits
    torch.testing.assert_close(told, wanted, rtol=1e-4, atol=1e-4)
    assert model.config._experts_implementation == usual
    assert torch.equal(model(**batch((9,))).logits, wanted)
    with pytest.raises(ValueError, match=IMPLEMENTATION):
        model.set_experts_implementation(IMPLEMENTATION)
