"""Damaged checkpoints are found by loading them with transformers and by running them."""

import json
import logging

import pytest
import torch
from transformers import LlamaForSequenceClassification

from tests.conftest import rewrite_tensors, save_tiny, tiny_config, tiny_model
from trl_prune.checkpoints import DamagedCheckpointError, prove_source, verify_loads, verify_runs
from trl_prune.errors import InputError


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_correct_checkpoint_passes(folder):
    verify_loads(folder)
    assert prove_source(folder) == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop(UP),
        lambda tensors: tensors.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(48, 32)}),
        lambda tensors: tensors.update({UP: torch.zeros(47, 32)}),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_a_damaged_checkpoint_raises(folder, change):
    rewrite_tensors(folder, change)
    with pytest.raises(DamagedCheckpointError, match="does not load"):
        verify_loads(folder)


def test_a_config_that_does_not_match_raises(folder):
    set_config(folder, num_hidden_layers=5)
    with pytest.raises(DamagedCheckpointError, match="missing_keys"):
        verify_loads(folder)


def test_a_checkpoint_that_gives_no_numbers_raises(folder):
    assert verify_runs(folder, "float32", tokens=5).shape == (1, 5, 259)
    rewrite_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DamagedCheckpointError, match="model.norm.weight has values that are NaN or infinite"):
        verify_runs(folder, "float32")


@pytest.mark.parametrize("name", ["v_head.summary.weight", "model.layers.1.self_attn.k_scale", "score.weight"])
def test_tensors_that_transformers_ignores_are_named_once(folder, name, caplog):
    """A value head of TRL's PPO, scales of a quantised KV cache: transformers warns of them and goes on."""
    rewrite_tensors(folder, lambda tensors: tensors.update({name: torch.ones(1, 32)}))
    with caplog.at_level(logging.WARNING, "trl_prune"):
        assert prove_source(folder) == prove_source(folder) == {name}
    assert sum(name in record.getMessage() for record in caplog.records if record.name.startswith("trl_prune")) == 1


def test_ignored_tensors_of_a_bare_backbone_have_their_stored_names(tmp_path):
    """GPT-2's files have no `transformer.` before their names; the loader adds it."""
    folder = save_tiny(tmp_path / "model", "gpt2")

    def bare(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.1.extra.weight"] = torch.ones(3)

    rewrite_tensors(folder, bare)
    assert prove_source(folder) == {"h.1.extra.weight"}


def test_a_source_that_changes_is_looked_at_again(folder):
    prove_source(folder)
    rewrite_tensors(folder, lambda tensors: tensors.pop(UP))
    with pytest.raises(InputError, match=f"model lacks {UP}, which transformers would fill with random numbers$"):
        prove_source(folder)


def test_a_backbone_without_a_head_is_no_causal_lm(folder):
    rewrite_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(InputError, match="lacks lm_head.weight.*without a language-model head, such as a backbone"):
        prove_source(folder)


def test_a_reward_model_that_names_no_class_is_no_causal_lm(tmp_path):
    LlamaForSequenceClassification(tiny_config("llama")).save_pretrained(tmp_path)
    set_config(tmp_path, architectures=None)
    with pytest.raises(InputError, match="lacks lm_head.weight.*a classifier or a reward model; wanted: a causal LM"):
        prove_source(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_stale_vocabulary_size_is_named_with_the_right_one(tmp_path, tied):
    model = tiny_model("llama", tie_word_embeddings=tied)
    model.resize_token_embeddings(271)
    model.save_pretrained(tmp_path)
    set_config(tmp_path, vocab_size=259)
    with pytest.raises(InputError, match=r"is \(271, 32\) in the files .* \(259, 32\).*set its vocab_size to 271"):
        prove_source(tmp_path)


def test_other_shapes_than_the_configs_are_named(folder):
    rewrite_tensors(folder, lambda tensors: tensors.update({UP: torch.zeros(47, 32)}))
    with pytest.raises(InputError, match=rf"{UP} is \(47, 32\) in the files of .* and \(48, 32\) by its config.json$"):
        prove_source(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "hqq"])
def test_a_quantised_source_without_its_package_is_one_sentence(folder, method):
    quantisation = {"quant_method": method, "bits": 4, "group_size": 32}
    set_config(folder, quantization_config=quantisation)
    with pytest.raises(InputError, match=f"{folder}") as caught:
        prove_source(folder)
    assert "\n" not in str(caught.value)


def test_a_generation_config_that_transformers_does_not_load_is_one_sentence(folder):
    (folder / "generation_config.json").write_text('{"num_return_sequences": 3}')
    with pytest.raises(InputError, match="cannot be loaded by transformers: Greedy methods.*num_return_sequences"):
        prove_source(folder)
