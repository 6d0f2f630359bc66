"""Code in a checkpoint is never run, and nobody is asked whether it may."""

import json

import pytest

from trl_prune.checkpoints import load_config, load_model, load_tokenizer
from trl_prune.errors import InputError


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def armed(copy, tmp_path):
    """A checkpoint with modules that leave a mark if they are imported."""
    for name in ("modeling", "tokenizing"):
        (copy / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Model: pass\n")
    yield copy
    assert not (tmp_path / "mark").exists()


def test_a_type_of_transformers_is_loaded_by_transformers_own_class(armed):
    change(armed / "config.json", auto_map={"AutoConfig": "modeling.Model", "AutoModelForCausalLM": "modeling.Model"})
    assert type(load_model(armed, "float32", "cpu")).__module__.startswith("transformers.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mine", "auto_map": {"AutoConfig": "modeling.Model"}}, "code of its own .modeling.Model."),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "me/repo--modeling.Model"}}, "code of its own"),
        ({"attn_implementation": "me/kernel"}, "code of the hub's .me/kernel."),
        ({"text_config": {"_attn_implementation": "me/kernel@main:f"}}, "code of the hub's"),
    ],
)
def test_a_config_that_needs_code_is_refused(armed, values, message):
    change(armed / "config.json", **values)
    with pytest.raises(InputError, match=f"config.json asks for {message}.*which is not run"):
        load_config(armed)


def test_a_tokenizer_that_needs_code_is_refused(armed, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "y")  # which transformers asks for where nothing is said
    change(
        armed / "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["tokenizing.Model", None]}
    )
    with pytest.raises(InputError, match="has no tokenizer that can be read: .*custom code"):
        load_tokenizer(armed)
