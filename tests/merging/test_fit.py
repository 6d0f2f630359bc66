"""Models that do not fit together are refused before anything is merged, with both values."""

import json

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import save_tiny
from trl_prune.checkpoints import Provenance, write_provenance
from trl_prune.errors import InputError
from trl_prune.merging.inputs import find_model, stored_dtype
from trl_prune.merging.merge import check_models
from trl_prune.merging.plan import MergePlan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "one")


def keep(folder, layers):
    write_provenance(Provenance({"path": "dense"}, "dense", {"num_hidden_layers": layers}), folder)


def with_another_token(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 259, "content": "<|new|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def without_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CASES = {
    "another shape": (
        {"intermediate_size": 40},
        lambda folder: None,
        "has model.layers.0.mlp.down_proj.weight of shape [32, 48] and {other} of shape [32, 40]",
    ),
    "another architecture": (
        {"family": "mistral"},
        lambda folder: None,
        "is of type llama (LlamaForCausalLM) and {other} of type mistral (MistralForCausalLM)",
    ),
    "fewer tensors": ({}, without_a_tensor, "{other} lacks model.layers.1.mlp.up_proj.weight"),
    "another tokenizer": ({}, with_another_token, "differ: '<|new|>' has the id None and 259, of 259 and 260 tokens"),
    "unknown units": ({}, lambda folder: keep(folder, [0, 1]), "{other} has a trl_prune.json and {one} has none"),
}


@pytest.mark.parametrize("case", CASES)
def test_models_that_differ_are_refused(case, model, tmp_path):
    changes, change, message = CASES[case]
    other = save_tiny(tmp_path / "other", **changes)
    change(other)
    with pytest.raises(InputError) as error:
        check_models(MergePlan.of("slerp", [model, other], None, {}))
    assert message.format(one=model, other=other) in str(error.value)


def test_models_that_keep_other_units_are_refused(tmp_path):
    folders = [save_tiny(tmp_path / name) for name in ("one", "other")]
    for folder, layers in zip(folders, ([0, 1, 2, 4], [0, 1, 2, 5]), strict=True):
        keep(folder, layers)
    message = r"one keeps the num_hidden_layers \[0, 1, 2, 4\] and .*other \[0, 1, 2, 5\]"
    with pytest.raises(InputError, match=message):
        check_models(MergePlan.of("slerp", folders, None, {}))
    keep(folders[1], [0, 1, 2, 4])
    check_models(MergePlan.of("slerp", folders, None, {}))


def test_a_base_must_fit_too(model, tmp_path):
    twin, base = save_tiny(tmp_path / "twin"), save_tiny(tmp_path / "base", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"has the tensor model.layers.3"):
        check_models(MergePlan.of("ties", [model, twin], base, {}))


def test_a_model_that_only_one_stores_the_tied_head_of_fits(tmp_path):
    folders = [save_tiny(tmp_path / name, tie_word_embeddings=True) for name in ("one", "other")]
    tensors = load_file(folders[1] / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folders[1] / "model.safetensors", metadata={"format": "pt"})
    check_models(MergePlan.of("slerp", folders, None, {}))


def test_a_model_given_twice_or_missing_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="is given 2 times to one merge"):
        MergePlan.of("linear", [model, str(model) + "/"], None, {})
    with pytest.raises(InputError, match="is neither a folder here nor a hub id"):
        MergePlan.of("linear", [model, tmp_path / "none"], None, {})


def test_folders_are_absolute(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert find_model("one") == model


def test_the_dtype_is_that_of_most_weights_and_integers_are_refused(tmp_path):
    folder = save_tiny(tmp_path / "model")
    assert stored_dtype(folder) == "float32"
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert stored_dtype(folder) == "bfloat16"
    save_file({name: tensor.char() for name, tensor in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match="has weights of dtype I8, which cannot be averaged"):
        stored_dtype(folder)


def test_an_adapter_without_its_model_is_one_sentence(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="names no model, which an adapter needs"):
        check_models(MergePlan.of("linear", [tmp_path / "adapter", save_tiny(tmp_path / "model")], None, {}))
