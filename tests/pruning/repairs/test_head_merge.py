"""The formula by hand."""

import pytest
import torch

from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, NEURONS
from trl_prune.pruning.repairs.head_merge import partners


def test_partners_as_the_paper_numbers_them():
    """L = 6 heads ranked 1..6, K = 4 kept: head 4 meets head 5, head 3 meets head 6, heads 1 and 2 meet none."""
    scores = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert partners(scores, [0, 1, 2, 3], 6) == [0, 1, 5, 4]


def test_partners_stay_in_their_group():
    scores = torch.tensor([1.0, 2.0, 3.0, 9.0, 8.0, 7.0])
    assert partners(scores, [1, 2, 3, 4], 3) == [0, 2, 3, 5]


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_queries_are_merged_and_nothing_else(scale, patient):
    dense = patient("qwen2", hidden_size=32, num_attention_heads=8, num_key_value_heads=2)
    scores = torch.arange(32.0).reshape(4, 8)
    dense.calibration.head_scores = scores
    keep = {HEADS: [[1, 2, 3, 5, 6, 7]] * 4}
    pruned = dense.pruned(keep, {"head_merge": {"scale": scale}}).state_dict()
    plain = dense.pruned(keep, {}, "plain").state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], pruned[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.{kind}" for layer in range(4) for kind in ("weight",)}
    heads = dense.model.float().model.layers[2].self_attn.q_proj.weight.reshape(8, 4, 32)
    wanted = heads[[1, 2, 3, 5, 6, 7]].clone()
    wanted[0] += scale * (heads[1] - heads[0])
    wanted[3] += scale * (heads[5] - heads[4])
    torch.testing.assert_close(pruned["model.layers.2.self_attn.q_proj.weight"], wanted.flatten(0, 1))
    assert read_provenance(dense.folder / "pruned").edits == [{"repair": "head_merge", "scale": scale}]


def test_biases_go_with_their_heads(patient):
    dense = patient("qwen2")
    with torch.no_grad():
        for block in dense.model.model.layers:
            block.self_attn.q_proj.bias.copy_(torch.arange(32.0))
    dense.calibration.head_scores = torch.arange(16.0).reshape(4, 4)
    repair = dense.repairs({HEADS: [[1, 3]] * 4}, {"head_merge": {}})[0]
    bias = torch.arange(32.0)
    kept = torch.cat([bias[8:16], bias[24:32]])
    told = repair.tensor("model.layers.0.self_attn.q_proj.bias", kept, bias)
    assert torch.equal(told, kept + 8)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_multi_head_attention_merges_keys_and_values_too(family, patient):
    changes = {"num_key_value_heads": 4} if family == "llama" else {}
    dense = patient(family, **changes)
    dense.calibration.head_scores = torch.arange(16.0).reshape(4, 4)
    keep = {HEADS: [[2, 3]] * 4} | ({HIDDEN: list(range(16))} if family != "llama" else {})
    pruned = dense.pruned(keep, {"head_merge": {}}).state_dict()
    plain = dense.pruned(keep, {}, "plain").state_dict()
    changed = {name.split(".")[-2] for name in plain if not torch.equal(plain[name], pruned[name])}
    assert changed == ({"c_attn"} if family == "gpt2" else {"q_proj", "k_proj", "v_proj"})


def test_more_gone_than_kept_is_refused(patient):
    dense = patient(hidden_size=32, num_attention_heads=8, num_key_value_heads=2)
    with pytest.raises(InputError, match="leaves 1 of 4 a group"):
        dense.repairs({HEADS: [[0, 4]] * 4}, {"head_merge": {}})


def test_whole_groups_gone_are_refused(patient):
    with pytest.raises(InputError, match="removes whole groups"):
        patient().repairs({GROUPS: [[0]] * 4}, {"head_merge": {}})


def test_no_heads_gone_is_refused(patient):
    with pytest.raises(InputError, match="head_merge repairs cuts of num_attention_heads"):
        patient().repairs({NEURONS: [[0, 1]] * 4}, {"head_merge": {}})


def test_scores_are_wanted(patient):
    with pytest.raises(InputError, match=r"wanted scores of shape \(4, 4\), got none"):
        patient().repairs({HEADS: [[0, 2]] * 4}, {"head_merge": {}})
