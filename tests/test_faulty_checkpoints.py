"""Checkpoints as users bring them: each is pruned, or refused in one sentence before anything is written."""

import json
import shutil

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import trl_prune
from tests.conftest import rewrite_tensors
from tests.recipes import recipe_values
from trl_prune.checkpoints import (
    check_causal_lm,
    fingerprint,
    load_config,
    load_tokenizer,
    locate,
    prove_source,
    tensor_files,
)
from trl_prune.cli import main
from trl_prune.data.tokenizer_checks import check_tokenizer
from trl_prune.errors import InputError


UP = "model.layers.1.mlp.up_proj.weight"


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def write_json(path, values):
    path.write_text(json.dumps(values))


def quantised(folder):
    set_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def without_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")


REFUSED = {
    "a reward model": (
        lambda folder: set_config(folder, architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification, which has no language-model head",
    ),
    "no head": (
        lambda folder: rewrite_tensors(folder, lambda tensors: tensors.pop("lm_head.weight")),
        "dense lacks lm_head.weight",
    ),
    "a stale vocabulary size": (lambda folder: set_config(folder, vocab_size=262), "set its vocab_size to 259"),
    "a vocabulary without its padding token": (
        lambda folder: set_config(folder, vocab_size=200),
        "dense cannot be loaded",
    ),
    "quantised": (quantised, "dense"),
    "an adapter beside": (lambda folder: write_json(folder / "adapter_config.json", {}), "a model and an adapter"),
    "shards without an index": (without_index, "no model.safetensors.index.json"),
    "an impossible generation config": (
        lambda folder: write_json(folder / "generation_config.json", {"num_return_sequences": 4}),
        "cannot be loaded by transformers",
    ),
}
TAKEN = {
    "an old index beside a single file": lambda folder: write_json(
        folder / "model.safetensors.index.json", {"weight_map": {UP: "model-00001-of-00002.safetensors"}}
    ),
    "a value head": lambda folder: rewrite_tensors(
        folder, lambda tensors: tensors.update({"v_head.summary.weight": torch.ones(1, 32)})
    ),
    "scales of a quantised cache": lambda folder: rewrite_tensors(
        folder, lambda tensors: tensors.update({"model.layers.1.self_attn.k_scale": torch.ones(())})
    ),
    "other libraries' weights": lambda folder: (folder / "rust_model.ot").write_bytes(b"x"),
}


@pytest.fixture
def folder(tmp_path):
    recipe_values(tmp_path)
    return tmp_path / "dense"


def run(tmp_path, capsys, *words, **sections):
    values = recipe_values(tmp_path) | {"prune": {"keep": {"num_hidden_layers": [0, 1, 3]}}} | sections
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    code = main([words[0], str(tmp_path / "recipe.yaml"), *words[1:]])
    return code, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_is_refused_in_one_sentence(case, folder, tmp_path, capsys):
    change, message = REFUSED[case]
    change(folder)
    code, error = run(tmp_path, capsys, "prune")
    assert code == 2
    assert message in error
    assert error.count("trl-prune: ") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", TAKEN)
def test_a_checkpoint_is_pruned_as_transformers_loads_it(case, folder, tmp_path, capsys):
    TAKEN[case](folder)
    code, error = run(tmp_path, capsys, "prune")
    assert code == 0, error
    pruned = tmp_path / "run" / "prune" / "model"
    names = {path.name for path in pruned.iterdir()}
    assert not {"rust_model.ot", "model.safetensors.index.json"} & names
    assert not any("v_head" in name or "scale" in name for name in tensor_files(pruned))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prune", "verb"),
    [({"target": {"layers": 2}}, "score"), ({"keep": {"num_hidden_layers": [0, 1, 3]}}, "prune")],
    ids=["scored", "cut by hand"],
)
def test_a_weight_that_is_no_number_is_named(prune, verb, folder, tmp_path, capsys):
    rewrite_tensors(folder, lambda tensors: tensors[UP].view(-1)[3].fill_(float("nan")))
    code, error = run(tmp_path, capsys, verb, prune=prune)
    assert code == 2
    assert f"the weight {UP} has values that are NaN or infinite" in error
    assert not (tmp_path / "run" / "prune" / "model").exists()
    for file in (tmp_path / "run").rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_the_dtype_and_what_chose_it_are_in_the_plan(folder, tmp_path, capsys):
    values = recipe_values(tmp_path) | {"dtype": "auto", "output": str(tmp_path / "auto")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert main(["prune", str(tmp_path / "recipe.yaml"), "--dry-run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("dtype "))
    assert line.startswith(("dtype float32, the processor has no", "dtype bfloat16, the processor has"))


VALUES = [None, -1, 0, 1, 3, 7, 64, 2.5, True, "x", "", [], {}, [1, 2], {"a": 1}, ["LlamaModel"]]
KEYS = [
    "architectures", "attention_dropout", "auto_map", "do_sample", "dtype", "eos_token_id", "head_dim", "hidden_act",
    "hidden_size", "intermediate_size", "model_type", "num_attention_heads", "num_beams", "num_hidden_layers",
    "num_key_value_heads", "num_return_sequences", "pad_token_id", "quantization_config", "rope_parameters",
    "temperature", "text_config", "tie_word_embeddings", "top_k", "transformers_weights", "vocab_size",
]  # fmt: skip
JSON_FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json"]
FILES = [*JSON_FILES, "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "LICENSE"]
NAMES = st.sampled_from(["model.fp16.safetensors", "x", "config.json"])
PLACES = st.sampled_from(["model.safetensors", "../x.safetensors", "/etc/passwd", "", "none.safetensors"])
FAULTS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(JSON_FILES[:3]), st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.tuples(st.just("drop"), st.sampled_from(JSON_FILES[:3]), st.sampled_from(KEYS)),
    st.tuples(st.just("remove"), st.sampled_from(FILES)),
    st.tuples(st.just("write"), st.sampled_from(FILES), st.binary(max_size=60)),
    st.tuples(st.just("cut"), st.sampled_from(FILES), st.integers(0, 300)),
)
LAYOUTS = st.one_of(
    st.tuples(
        st.just("rename"), st.sampled_from(FILES), st.sampled_from(["model.fp16.safetensors", "x", "config.json"])
    ),
    st.tuples(st.just("split"), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("link"), st.sampled_from(FILES), st.sampled_from(["/nowhere", "..", "config.json"])),
    st.tuples(st.just("folder"), st.sampled_from(FILES)),
    st.tuples(
        st.just("index"), st.dictionaries(st.sampled_from([UP, "x", ""]), PLACES, max_size=2) | st.sampled_from(VALUES)
    ),
)
PLANS = [{"num_hidden_layers": [0, 3]}, {"intermediate_size": [[0, 1, 2, 3]] * 4}, {"hidden_size": list(range(16))}]


def lay_out(folder, kind, *values):
    """Change which files a checkpoint has, if it is still possible after others."""
    path = folder / str(values[0])
    if kind == "index":
        write_json(folder / "model.safetensors.index.json", {"weight_map": values[0]})
    elif kind == "split":
        split(folder, values[0])
    elif kind == "rename" and path.is_file():
        path.rename(folder / values[1])
    elif kind in ("link", "folder"):
        path.unlink(missing_ok=True)
        path.symlink_to(values[1]) if kind == "link" else path.mkdir()


def split(folder, shards):
    """Write the weights as shards with an index, as transformers does with a large model."""
    single = folder / "model.safetensors"
    if not single.is_file() or single.stat().st_size < 1000:
        return
    tensors = load_file(single)
    single.unlink()
    places = {
        name: f"model-{number % shards + 1:05d}-of-{shards:05d}.safetensors" for number, name in enumerate(tensors)
    }
    for place in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == place}, folder / place, {"format": "pt"})
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def harm(folder, kind, name, *values):
    """Make one fault in a checkpoint, if it is still possible after others."""
    path = folder / name
    if kind == "write":
        path.write_bytes(values[0])
    elif kind == "remove":
        path.unlink(missing_ok=True)
    elif kind == "cut" and path.is_file():
        path.write_bytes(path.read_bytes()[: values[0]])
    elif kind in ("set", "drop") and path.is_file():
        try:
            content = json.loads(path.read_bytes())
        except ValueError:
            return
        content.pop(values[0], None)
        path.write_text(json.dumps(content | ({values[0]: values[1]} if kind == "set" else {})))


@pytest.mark.slow
@settings(
    max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(LAYOUTS, max_size=2), st.lists(FAULTS, max_size=2))
def test_any_folder_is_a_checkpoint_or_one_sentence(dense, tmp_path, layouts, faults):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(dense, folder, copy_function=shutil.copyfile)
    try:
        for layout in layouts:
            lay_out(folder, *layout)
        for fault in faults:
            harm(folder, *fault)
    except OSError:  # what is now a folder or a broken link cannot be written
        return
    sentence, names = "", {UP: ""}
    try:
        names = looked_at(folder)
    except InputError as error:
        sentence = str(error)
    assert UP in names
    assert "\n" not in sentence


def looked_at(folder):
    """Look at a checkpoint as every verb does before any work, and return the names of its tensors."""
    config = load_config(locate(str(folder)))
    check_causal_lm(config)
    prove_source(folder)
    check_tokenizer(load_tokenizer(folder), folder, config.get_text_config().vocab_size)
    assert fingerprint(folder)
    return tensor_files(folder)


@pytest.mark.slow
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(FAULTS, min_size=1, max_size=2), st.sampled_from(PLANS))
def test_any_fault_ends_in_success_or_one_sentence(dense, tmp_path, faults, plan):
    folder, pruned = tmp_path / "model", tmp_path / "pruned"
    for path in (folder, pruned):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(dense, folder, copy_function=shutil.copyfile)  # with new times, by which changes are noticed
    for fault in faults:
        harm(folder, *fault)
    sentence = ""
    try:
        trl_prune.prune(folder, pruned, plan)
    except InputError as error:
        sentence = str(error)
    assert pruned.exists() != bool(sentence)
    assert "\n" not in sentence
    assert ".part" not in sentence
