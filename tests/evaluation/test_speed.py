from dataclasses import asdict

import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.evaluation import speed as speed_module
from trl_prune.evaluation.efficiency import Work, count_work
from trl_prune.evaluation.speed import (
    DECODE_PROMPT_TOKENS,
    DECODE_TOKENS,
    SpeedComparison,
    compare_speed,
    speed_bound,
    speed_calls,
)
from trl_prune.evaluation.timing import Interval
from trl_prune.pruning.surgery.cut import LAYERS, meta_model


@pytest.fixture(scope="module")
def models():
    return tiny_model("llama"), tiny_model("llama", num_hidden_layers=2)


def test_two_models_are_timed_in_turn_and_left_as_they_were(models):
    found = compare_speed(*models, seconds=0)
    for speed, model in zip((found.dense, found.small), models, strict=True):
        assert speed.prefill.value > 0
        assert speed.decode.value > 0
        assert speed.weight_bytes >= 4 * sum(weight.numel() for weight in model.parameters())
        assert speed.peak_bytes is None  # on a CPU
    assert found.dense.weight_bytes > found.small.weight_bytes
    assert (found.prefill.repeats, found.prefill.is_known) == (2, False)
    assert SpeedComparison.from_dict(asdict(found)) == found
    assert torch.is_grad_enabled()


def test_the_gain_is_of_tokens_per_second(models, monkeypatch):
    monkeypatch.setattr(speed_module, "repeat_until_narrow", lambda *_: {"base": [2.0] * 6, "other": [1.0] * 6})
    found = compare_speed(*models)
    assert found.decode == found.prefill == Interval(2.0, 2.0, 2.0, 6)
    assert found.dense.decode.value == DECODE_TOKENS / 2
    assert found.small.prefill.value == 512


def test_calls_prefill_the_whole_prompt_and_generate_all_tokens(models):
    calls = speed_calls(models[0], batch_size=2)
    assert calls["prefill"]().shape[:2] == (2, 1)  # one position's logits
    assert calls["decode"]().shape == (2, DECODE_PROMPT_TOKENS + DECODE_TOKENS)


def test_a_prompt_is_no_longer_than_the_context():
    model = tiny_model("gpt2")  # 256 positions
    calls = speed_calls(model)
    assert calls["prefill"]().shape[1] == 1


def test_blocks_removed_allow_what_they_saved():
    config = tiny_model("llama").config
    dense, half = (count_work(meta_model(config, keep)) for keep in (None, {LAYERS: [0, 3]}))
    allowed = speed_bound(dense, half)
    head = 2 * config.vocab_size * config.hidden_size / 512  # logits of one of 512 tokens
    rotary = 8  # the angles, once for all blocks
    assert allowed.prefill == pytest.approx(2 - (head + rotary) / half.prefill_flops, abs=1e-3)
    context = DECODE_PROMPT_TOKENS + DECODE_TOKENS / 2
    dense_cache, half_cache = (blocks * 2 * 2 * 8 * context for blocks in (4, 2))  # K and V of 2 groups of 8
    assert allowed.decode == pytest.approx((dense.decode_weights + dense_cache) / (half.decode_weights + half_cache))


def test_gains_are_told_beside_what_the_cost_allows(models, monkeypatch):
    monkeypatch.setattr(speed_module, "repeat_until_narrow", lambda *_: {"base": [1.18] * 6, "other": [1.0] * 6})
    bound = speed_bound(Work(125.0, 119, 0.0), Work(100.0, 100, 0.0))
    assert compare_speed(*models).sentences(bound) == [
        "It decodes 1.18x [1.18, 1.18] as fast as the dense model; the bytes that it reads allow 1.19x.",
        "It reads prompts 1.18x [1.18, 1.18] as fast; its operations allow 1.25x.",
    ]
    busy = {"base": [1.0, 2.0, 1.0] * 2, "other": [1.0, 1.0, 1.5] * 2}
    monkeypatch.setattr(speed_module, "repeat_until_narrow", lambda *_: busy)
    sentence = compare_speed(*models).sentences(bound)[-1]
    assert sentence.startswith("Measured on a busy machine")
    assert sentence.endswith("(in a run, with another `evaluate.speed_seconds`).")


def test_gains_of_too_few_repeats_are_told_without_an_interval(models, monkeypatch):
    monkeypatch.setattr(speed_module, "repeat_until_narrow", lambda *_: {"base": [1.18] * 3, "other": [1.0] * 3})
    sentences = compare_speed(*models).sentences(speed_bound(Work(125.0, 119, 0.0), Work(100.0, 100, 0.0)))
    assert sentences[0].startswith("It decodes 1.18x (timed 3 times only) as fast as the dense model; ")
    assert sentences[-1].startswith("6 repeats at least have an interval; measure again for longer ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch counts peak memory on a GPU only")
def test_peak_memory_is_the_models_own(models):
    found = compare_speed(*(model.to("cuda") for model in models), seconds=0)
    assert found.dense.weight_bytes < found.dense.peak_bytes < 100 * found.dense.weight_bytes
