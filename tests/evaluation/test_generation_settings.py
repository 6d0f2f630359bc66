import pytest
import torch
from transformers import GenerationConfig

from tests.conftest import tiny_model
from trl_prune.evaluation.generation_settings import plain_settings, settings_of


LEAKING = {"num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 1.8, "no_repeat_ngram_size": 2}


def test_only_the_special_tokens_of_a_checkpoint_reach_what_is_generated():
    model = tiny_model("llama")
    ids, options = torch.arange(5)[None], {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(ids, **options).tolist()
    own = GenerationConfig(eos_token_id=model.generation_config.eos_token_id, max_length=9, **LEAKING)
    model.generation_config = own
    assert model.generate(ids, **options).tolist() != expected
    with plain_settings(model):
        assert model.generate(ids, **options).tolist() == expected
        assert model.generation_config.eos_token_id == own.eos_token_id
    assert model.generation_config is own


def test_settings_come_back_after_an_error():
    model = tiny_model("llama")
    own = model.generation_config
    with pytest.raises(ZeroDivisionError), settings_of(model, GenerationConfig()):
        1 / 0  # noqa: B018
    assert model.generation_config is own
