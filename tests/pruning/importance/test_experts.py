"""Reference: each expert applied to the tokens routed to it, one at a time, in float64."""

import copy

import pytest
import torch

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.units import EXPERT_SCORES, Ranking, choose_keep
from trl_prune.pruning.deriving.tiny import tiny_config as derived_config
from trl_prune.pruning.deriving.tiny import tiny_model as derived_model
from trl_prune.pruning.families import EXPERTS, FAMILIES, derived_rows
from trl_prune.pruning.importance.experts import (
    IMPLEMENTATION,
    NORMS,
    TOKENS,
    WEIGHTED,
    ExpertObserver,
    expert_importance,
)
from trl_prune.pruning.importance.forward import observe
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.scores import empty_scores, score


MIXTURES = sorted(family for family, row in FAMILIES.items() if EXPERTS in row.axes)
DERIVED = sorted(name for name, row in derived_rows().items() if EXPERTS in row.axes)[::4]


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
    model = copy.deepcopy(model).double()
    model.set_experts_implementation("eager")  # the others have no float64
    sums = [None] * 4
    routed = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: routed.__setitem__(layer, args))
        for layer, module in experts_of(model).items()
    ]
    for length in LENGTHS:  # one text at a time, without padding
        model(**batch((length,)))
        for layer, (states, top_k_index, top_k_weights) in routed.items():
            sums[layer] = torch.zeros(4, 4, dtype=torch.float64) if sums[layer] is None else sums[layer]
            for state, experts, weights in zip(states, top_k_index, top_k_weights, strict=True):
                for expert, weight in zip(experts.tolist(), weights.tolist(), strict=True):
                    norm = output(experts_of(model)[layer], expert, state).norm().item()
                    sums[layer][:, expert] += torch.tensor([norm, norm * weight, 1, (norm * weight) ** 2])
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


def test_importance_is_what_the_names_say():
    """Two experts: outputs of norm 2 and 4 with weights 0.5 and 0.25, and one output of norm 8 with weight 0.5."""
    sums = torch.tensor([[6.0, 8, 0], [2, 4, 0], [2, 1, 0], [2, 16, 0]], dtype=torch.float64)
    expected = {
        "norm": [3, 8, 0],
        "reap": [1, 4, 0],
        "frequency": [2 / 3, 1 / 3, 0],
        "output": [1 / 9, 8 / 9, 0],
    }
    assert set(expected) == set(EXPERT_SCORES)
    for by, values in expected.items():
        torch.testing.assert_close(expert_importance(sums, by), torch.tensor(values, dtype=torch.float64))
        assert (expert_importance(torch.zeros(4, 3, dtype=torch.float64), by) == 0).all()


def planted():
    """Return a mixture whose expert 1 is never among the two of five that a token is routed to."""
    model = tiny_model("qwen3_moe", num_experts=5, decoder_sparse_step=1)
    for block in decoder_blocks(model):
        direction = block.mlp.gate.weight.data[:1]
        block.mlp.gate.weight.data = torch.tensor([[2.0], [0], [1], [-1], [-2]]) * direction
    return model


def test_an_expert_that_no_token_is_routed_to_is_cut_first():
    model = planted()
    scores = score(model, [batch()])
    for by in EXPERT_SCORES:
        keep = choose_keep(scores, {EXPERTS: 4}, model.config, FAMILIES["qwen3_moe"], Ranking(experts_by=by))
        assert keep[EXPERTS] == [[0, 2, 3, 4]] * 4


def test_an_expert_without_output_is_cut_first_however_often_it_is_chosen():
    model = planted()
    for experts in experts_of(model).values():
        experts.down_proj.data[0] = 0
    scores = score(model, [batch()])
    for by in EXPERT_SCORES:
        keep = choose_keep(scores, {EXPERTS: 3}, model.config, FAMILIES["qwen3_moe"], Ranking(experts_by=by))
        assert (keep[EXPERTS] == [[2, 3, 4]] * 4) == (by != "frequency")


def test_groups_of_experts_keep_equally_many():
    config = derived_config("deepseek_v3", n_routed_experts=8, n_group=2, topk_group=1, num_experts_per_tok=2)
    model = derived_model(config)
    keep = choose_keep(score(model, [batch()]), {EXPERTS: 4}, config, derived_rows()["deepseek_v3"])
    assert all(sum(expert < 4 for expert in experts) == 2 for experts in keep[EXPERTS])
    with pytest.raises(InputError, match="num_experts is 5; allowed: multiples of 2"):
        choose_keep(score(model, [batch()]), {EXPERTS: 5}, config, derived_rows()["deepseek_v3"])


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=() if name == "llama4_text" else pytest.mark.slow) for name in dict.fromkeys(DERIVED)],
)
def test_every_token_of_derived_types_is_counted(model_type):
    model = derived_model(derived_config(model_type))
    text = model.config.get_text_config()
    scores = score(model, [batch()])
    seen = [sums for sums in scores.experts if sums is not None]
    assert seen
    for sums in seen:
        assert sums[TOKENS].sum() == sum(LENGTHS) * text.num_experts_per_tok
    assert (scores.expert_importance("reap").sum(dim=1) > 0).sum() == len(seen)


def test_scores_without_experts_are_not_taken_for_equal_experts():
    with pytest.raises(InputError, match="the scores have no experts"):
        empty_scores(tiny_model("mixtral")).expert_importance()
