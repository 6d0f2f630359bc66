"""What a config says of each block, after some blocks are gone."""

from types import SimpleNamespace

import pytest

from trl_prune.pruning.layer_patterns import pattern_changes


KEPT = [0, 2, 3, 5]


def config_of(**entries):
    return SimpleNamespace(model_type="any", num_hidden_layers=6, to_dict=lambda: entries, **entries)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"attn_layer_indices": [2, 4, 5]}, {"attn_layer_indices": [1, 3]}),
        ({"first_k_dense_replace": 3}, {"first_k_dense_replace": 2}),
        ({"num_kv_shared_layers": 2}, {"num_kv_shared_layers": 1}),
        (
            {"moe_layer_start_index": 1, "moe_layer_end_index": 3},
            {"moe_layer_start_index": 1, "moe_layer_end_index": 2},
        ),
        ({"mlp_only_layers": [0], "decoder_sparse_step": 2}, {"mlp_only_layers": [0, 1], "decoder_sparse_step": 1}),
        ({"per_layer_config": {"02": {"head_dim": 8}, "04": {}}}, {"per_layer_config": {"01": {"head_dim": 8}}}),
        ({"block_types": ["a", "b"]}, {"block_types": ["a", "a", "b", "b"]}),
        (
            {"attention_types": [[["g", "l"], 3]], "attention_layers": ["g", "l"] * 3},
            {"attention_types": [[["g", "g", "l", "l"], 1]], "attention_layers": ["g", "g", "l", "l"]},
        ),
        ({"num_blocks": 6}, {"num_blocks": 4}),
        ({"ple_layer_ids": [1, 2, 6]}, {"ple_layer_ids": [1, 4]}),
        (
            {"n_input_layers": 2, "n_recurrent_layers": 3, "n_output_layers": 1},
            {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
        ),
    ],
)  # fmt: skip
def test_patterns_follow_their_blocks(entries, expected):
    assert pattern_changes(config_of(**entries), KEPT, ()) == expected


def test_lists_are_sliced_and_a_number_in_their_place_stays():
    config = config_of(layer_types=list("abcdef"), intermediate_size=48)
    assert pattern_changes(config, KEPT, ("layer_types", "intermediate_size")) == {"layer_types": ["a", "c", "d", "f"]}


def test_residuals_keep_their_scale():
    scale = pattern_changes(config_of(scale_depth=1.4), KEPT, ())["scale_depth"]
    assert scale / 4**0.5 == pytest.approx(1.4 / 6**0.5)
