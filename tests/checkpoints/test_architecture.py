"""What is no causal LM is refused in one sentence, by its config, before any work."""

import json

import pytest
from transformers import AutoConfig

from tests.conftest import save_tiny, tiny_config
from tests.recipes import recipe
from trl_prune.checkpoints import load_config
from trl_prune.checkpoints.architecture import check_causal_lm
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.families import FAMILIES, derived_rows


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (AutoConfig.for_model("bert", architectures=["BertModel"]), r"an encoder \(bert\)"),
        (AutoConfig.for_model("modernbert"), r"an encoder \(modernbert\)"),
        (AutoConfig.for_model("t5"), r"an encoder-decoder \(t5\)"),
        (AutoConfig.for_model("bart", architectures=["BartForConditionalGeneration"]), "an encoder-decoder"),
        (AutoConfig.for_model("whisper"), "an encoder-decoder"),
        (AutoConfig.for_model("vit"), r"no causal LM of transformers \(vit\)"),
        (tiny_config("llama", architectures=["LlamaForSequenceClassification"]), "a LlamaForSequenceClassification"),
        (tiny_config("qwen2", architectures=["Qwen2ForRewardModel"]), "a Qwen2ForRewardModel, which has no"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_other_models_are_named(config, kind):
    with pytest.raises(InputError, match=f"^the checkpoint is {kind}.*; wanted: a"):
        check_causal_lm(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "mine"}}, "quant_method 'mine', which transformers does not know"),
        ({"return_dict": False}, "return_dict is false"),
        ({"rope_parameters": [1]}, "'rope_parameters': ."),
    ],
)
def test_a_config_that_transformers_or_lm_eval_trips_over_is_refused_first(tmp_path, changes, message):
    config = tiny_config("llama").to_dict() | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"config.json cannot be used: .*{message}"):
        load_config(tmp_path)


def test_every_type_that_can_be_cut_passes():
    for model_type in FAMILIES | derived_rows():
        check_causal_lm(AutoConfig.for_model(model_type))


@pytest.mark.parametrize("change", [{"architectures": ["LlamaForSequenceClassification"]}, {"model_type": "bert"}])
def test_a_run_stops_before_it_begins(change, tmp_path):
    values = recipe(tmp_path)
    path = tmp_path / "dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="wanted: a"):
        run_recipe(values)
    assert not (tmp_path / "run").exists()


def test_code_in_a_checkpoint_is_not_run_and_not_asked_for(tmp_path):
    folder = save_tiny(tmp_path / "dense")
    path = folder / "config.json"
    values = json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    path.write_text(json.dumps(values))
    assert load_config(folder).model_type == "llama"  # transformers has classes for it
    (folder / "configuration_own.py").write_text("raise SystemExit('was run')")
    path.write_text(json.dumps(values | {"model_type": "own"}))
    with pytest.raises(
        InputError, match=r"asks for code of its own \(configuration_own.OwnConfig\).*which is not run"
    ):
        load_config(folder)
