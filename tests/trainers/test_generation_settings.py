"""Generation configs that transformers refuses to save are mended, and generate what they generated."""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from tests.conftest import tiny_model
from trl_prune.trainers.generation_settings import mend_generation_config


IDLE = [
    {"temperature": 0.9, "top_p": 0.6},
    {"do_sample": False, "top_k": 20, "min_p": 0.1},
    {"length_penalty": 2.0, "early_stopping": True},
    {"output_scores": True},
    {"pad_token_id": -1},
    {"use_cache": False, "cache_implementation": "static"},
]


@pytest.mark.parametrize("values", IDLE)
def test_settings_without_effect_are_left_out(tmp_path, values, caplog):
    model = tiny_model("llama")
    model.generation_config = GenerationConfig(eos_token_id=257, max_new_tokens=5, **values)
    tokens = torch.arange(10)[None]
    before = model.generate(tokens, use_cache=True, pad_token_id=0)
    model.generation_config.eos_token_id = [257, 258]  # as a trainer does: from now on transformers is strict
    with pytest.raises(ValueError, match="Fix these issues"):
        model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "trl_prune"):
        mend_generation_config(model)
    assert next(name for name in values if name not in ("do_sample", "use_cache")) in caplog.messages[-1]
    model.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert saved.generation_config.eos_token_id == [257, 258]
    assert torch.equal(saved.generate(tokens, use_cache=True, pad_token_id=0, eos_token_id=257), before)


def test_settings_in_use_stay(caplog):
    model = tiny_model("llama")
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
    mend_generation_config(model)
    assert (model.generation_config.temperature, model.generation_config.top_p) == (0.6, 0.9)
    assert not caplog.text
