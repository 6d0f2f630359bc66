"""Every stage of a recipe on the text rows of a multimodal checkpoint."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.conftest import tiny_tokenizer
from tests.recipes import recipe_values
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.recipe import parse_recipe


def multimodal_recipe(folder, model_type, **prune):
    values = recipe_values(folder)
    tokenizer = tiny_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = tiny_model(tiny_config(model_type))
    assert model.config.get_text_config().vocab_size >= len(tokenizer)
    model.generation_config.update(**ids)
    model.save_pretrained(folder / "multimodal")
    tokenizer.save_pretrained(folder / "multimodal")
    args = values["recover"]["sft"]["args"]
    values |= {"model": str(folder / "multimodal"), "prune": {"target": {"layers": 4}} | prune}
    values["recover"] = {
        "selfd": values["recover"]["selfd"],
        "kd": {"method": "kd", "data": "references", "args": args},
    }
    values["evaluate"]["tasks"] = ["tiny_choice"]
    return parse_recipe(values, "test")


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "text_only"), [("gemma3", True), ("qwen3_vl", False)])
def test_every_stage_runs(model_type, text_only, tmp_path):
    run = run_recipe(multimodal_recipe(tmp_path, model_type, text_only=text_only))
    auto_class = AutoModelForCausalLM if text_only else AutoModelForImageTextToText
    for folder in [
        run.folder.output("prune", "model"),
        *(run.folder.output("recover", "model", arm) for arm in run.recipe.recover),
    ]:
        model, info = auto_class.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        assert model.config.get_text_config().num_hidden_layers == 4
    scores = json.loads((run.folder.stage_dir("evaluate", "kd") / "result.json").read_text())["metrics"]
    assert scores
    assert (run.folder.path / "report").is_dir()
