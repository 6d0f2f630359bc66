"""The paper's formula, computed from the dense weights."""

import pytest
import torch

from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, NEURONS
from trl_prune.pruning.repairs.head_merge import partners


def test_partners_follow_the_formula_of_the_paper():
    """L = 6 heads ranked 1..6, K = 4 kept: head 4 is paired with 5, head 3 with 6, heads 1 and 2 with none."""
    scores = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert partners(scores, [0, 1, 2, 3], 6) == [0, 1, 5, 4]


def test_partners_are_in_the_same_kv_group():
    scores = torch.tensor([1.0, 2.0, 3.0, 9.0, 8.0, 7.0])
    assert partners(scores, [1, 2, 3, 4], 3) == [0, 2, 3, 5]


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_only_queries_are_merged_with_fewer_kv_heads(scale, repair_case):
    dense = repair_case("qwen2", hidden_size=32, num_attention_heads=8, num_key_value_heads=2)
    scores = torch.arange(32.0).reshape(4, 8)
    dense.calibration.head_scores = scores
    keep = {HEADS: [[1, 2, 3, 5, 6, 7]] * 4}
    pruned = dense.pruned(keep, {"head_merge": {"scale": scale}}).state_dict()
    plain = dense.pruned(keep, {}, "plain").state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], pruned[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.{kind}" for layer in range(4) for kind in ("weight",)}
    heads = dense.model.float().model.layers[2].self_attn.q_proj.weight.reshape(8, 4, 32)
    expected = heads[[1, 2, 3, 5, 6, 7]].clone()
    expected[0] += scale * (heads[1] - heads[0])
    expected[3] += scale * (heads[5] - heads[4])
    torch.testing.assert_close(pruned["model.layers.2.self_attn.q_proj.weight"], expected.flatten(0, 1))
    assert read_provenance(dense.folder / "pruned").edits == [{"repair": "head_merge", "scale": scale}]


def test_biases_are_merged_with_their_heads(repair_case):
    dense = repair_case("qwen2")
    with torch.no_grad():
        for block in dense.model.model.layers:
            block.self_attn.q_proj.bias.copy_(torch.arange(32.0))
    dense.calibration.head_scores = torch.arange(16.0).reshape(4, 4)
    repair = dense.repairs({HEADS: [[1, 3]] * 4}, {"head_merge": {}})[0]
    bias = torch.arange(32.0)
    kept = torch.cat([bias[8:16], bias[24:32]])
    merged = repair.apply("model.layers.0.self_attn.q_proj.bias", kept, bias)
    assert torch.equal(merged, kept + 8)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_multi_head_attention_merges_keys_and_values_too(family, repair_case):
    changes = {"num_key_value_heads": 4} if family == "llama" else {}
    dense = repair_case(family, **changes)
    dense.calibration.head_scores = torch.arange(16.0).reshape(4, 4)
    keep = {HEADS: [[2, 3]] * 4} | ({HIDDEN: list(range(16))} if family != "llama" else {})
    pruned = dense.pruned(keep, {"head_merge": {}}).state_dict()
    plain = dense.pruned(keep, {}, "plain").state_dict()
    changed = {name.split(".")[-2] for name in plain if not torch.equal(plain[name], pruned[name])}
    assert changed == ({"c_attn"} if family == "gpt2" else {"q_proj", "k_proj", "v_proj"})


def test_removing_more_heads_than_are_kept_raises(repair_case):
    dense = repair_case(hidden_size=32, num_attention_heads=8, num_key_value_heads=2)
    with pytest.raises(InputError, match="keeps 1 of 4 per group"):
        dense.repairs({HEADS: [[0, 4]] * 4}, {"head_merge": {}})


def test_removing_whole_groups_raises(repair_case):
    with pytest.raises(InputError, match="removes whole groups"):
        repair_case().repairs({KV_HEADS: [[0]] * 4}, {"head_merge": {}})


def test_a_plan_that_keeps_all_heads_raises(repair_case):
    with pytest.raises(InputError, match="head_merge repairs cuts of num_attention_heads"):
        repair_case().repairs({NEURONS: [[0, 1]] * 4}, {"head_merge": {}})


def test_missing_head_scores_raise(repair_case):
    with pytest.raises(InputError, match=r"requires scores of shape \(4, 4\), got none"):
        repair_case().repairs({HEADS: [[0, 2]] * 4}, {"head_merge": {}})
