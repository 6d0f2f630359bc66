"""Scoring block by block: the sums of the model in memory, bit for bit, and what an interruption leaves."""

import pytest
import torch

from tests.conftest import save_tiny
from tests.pruning.batches import LENGTHS, batch
from trl_prune.checkpoints import load_model
from trl_prune.errors import InputError
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.families import FAMILIES
from trl_prune.pruning.importance.blockwise import score_by_blocks
from trl_prune.pruning.importance.one_block import OneBlockModel, why_not_one_by_one
from trl_prune.pruning.importance.scores import empty_scores, score


BATCHES = [batch(), batch(LENGTHS[1:], side="left", width=20)]
# Of each kind of block: hybrids, latent attention, dense blocks first, tuples as outputs, multimodal towers.
DERIVED = (
    "bamba", "deepseek_v3", "gemma3", "gemma4_text", "jamba", "kimi_linear", "lfm2_moe", "llama4_text",
    "mamba2", "nemotron_h", "openai-gpt", "qwen3_5_moe", "qwen3_next", "qwen3_vl",
)  # fmt: skip
FAST = ("llama", "gemma2", "gpt2", "qwen3_moe", "mixtral", "gpt_oss", "phi3")


def by_blocks(folder, states, tokens="all", dtype="float32", after_block=lambda: None):
    source = OneBlockModel(folder, getattr(torch, dtype), "cpu")
    return score_by_blocks(source, BATCHES, tokens, empty_scores(source.model), states, after_block)


def assert_equal(scores, expected):
    assert torch.equal(scores.layers.angle, expected.layers.angle)
    assert torch.equal(scores.layers.cosine, expected.layers.cosine)
    assert scores.channels.keys() == expected.channels.keys()
    assert all(torch.equal(scores.channels[axis], sums) for axis, sums in expected.channels.items())
    assert any(sums is not None for sums in scores.experts) == any(sums is not None for sums in expected.experts)
    if any(sums is not None for sums in scores.experts):
        assert torch.equal(scores.expert_importance("output"), expected.expert_importance("output"))
    counts = [(found.num_texts, found.num_batches, found.layers.num_positions) for found in (scores, expected)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in sorted(FAMILIES)]
)
def test_the_scores_are_those_of_the_model_in_memory(family, tmp_path):
    folder = save_tiny(tmp_path / "dense", family)
    expected = score(load_model(folder, "float32", "cpu"), BATCHES)
    assert_equal(by_blocks(folder, tmp_path / "states"), expected)


@pytest.mark.parametrize(("tokens", "dtype"), [("last", "float32"), ("all", "bfloat16")])
def test_they_are_for_last_tokens_and_in_another_dtype(tokens, dtype, tmp_path):
    folder = save_tiny(tmp_path / "dense", "qwen2_moe")
    expected = score(load_model(folder, dtype, "cpu"), BATCHES, tokens)
    assert_equal(by_blocks(folder, tmp_path / "states", tokens, dtype), expected)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", DERIVED)
def test_derived_types_have_the_same_scores(model_type, tmp_path):
    tiny_model(tiny_config(model_type)).save_pretrained(tmp_path / "dense")
    expected = score(load_model(tmp_path / "dense", "float32", "cpu"), BATCHES)
    assert_equal(by_blocks(tmp_path / "dense", tmp_path / "states"), expected)


def test_an_interrupted_pass_goes_on_after_the_last_block(tmp_path):
    folder = save_tiny(tmp_path / "dense", "qwen3_moe")
    finished = []

    def interrupt():
        finished.append(len(finished))
        if len(finished) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_blocks(folder, tmp_path / "states", after_block=interrupt)
    resumed = by_blocks(folder, tmp_path / "states", after_block=lambda: finished.append(len(finished)))
    assert len(finished) == 4  # of four blocks two ran before and two after
    assert_equal(resumed, score(load_model(folder, "float32", "cpu"), BATCHES))


def test_one_block_has_weights_at_a_time(tmp_path):
    source = OneBlockModel(save_tiny(tmp_path / "dense", "mixtral"), torch.float32, "cpu")
    blocks = source.model.model.layers
    for layer in range(4):
        with source.loaded(layer):
            assert [all(weight.is_meta for weight in block.parameters()) for block in blocks] == [
                index != layer for index in range(4)
            ]
    assert source.model.lm_head.weight.is_meta


def test_blocks_that_use_what_earlier_ones_computed_are_refused(tmp_path):
    config = tiny_config("gemma3n_text")
    assert "num_kv_shared_layers" in why_not_one_by_one(config)
    tiny_model(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot run one by one: blocks use what earlier ones computed"):
        OneBlockModel(tmp_path, torch.float32, "cpu")


def test_quantised_weights_are_refused():
    config = tiny_config("mistral", quantization_config={"quant_method": "fp8"})
    assert why_not_one_by_one(config) == "its weights are quantised"
