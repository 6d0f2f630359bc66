"""The real mergekit on the shipped recipes."""

from importlib.resources import files

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM

from tests.conftest import save_tiny


RECIPES = sorted(path.name for path in files("mergekit_recipes").iterdir() if path.name.endswith(".yaml"))


def weights(folder):
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    return model.state_dict()


def merge(recipe, models, out):
    text = (files("mergekit_recipes") / recipe).read_text()
    for name, folder in models.items():
        text = text.replace(f"./recover/{name}/model", str(folder))
    config = MergeConfiguration.model_validate(yaml.safe_load(text) | {"dtype": "float32"})
    run_merge(
        config, str(out), MergeOptions(lazy_unpickle=True, copy_tokenizer=True, quiet=True, write_model_card=False)
    )
    return weights(out)


@pytest.mark.parametrize("recipe", RECIPES)
def test_merging_a_model_with_itself_gives_itself(recipe, tmp_path):
    folder = save_tiny(tmp_path / "model")
    twin = save_tiny(tmp_path / "twin")
    merged = merge(recipe, {"sft": folder, "selfd": twin}, tmp_path / "merged")
    for name, weight in weights(folder).items():
        torch.testing.assert_close(merged[name], weight)


def slerp(one, other, share):
    """The formula of arXiv 2410.09982's merge on flattened tensors."""
    flat = [tensor.flatten().double() for tensor in (one, other)]
    cosine = torch.dot(*[tensor / tensor.norm() for tensor in flat]).clamp(-1, 1)
    angle = cosine.arccos()
    if cosine.abs() > 0.9995:  # mergekit turns to a straight line there
        return torch.lerp(one, other, share)
    parts = [torch.sin((1 - share) * angle), torch.sin(share * angle)]
    merged = (parts[0] * flat[0] + parts[1] * flat[1]) / torch.sin(angle)
    return merged.reshape(one.shape).float()


def test_slerp_is_the_formula(tmp_path):
    one, other = save_tiny(tmp_path / "one"), save_tiny(tmp_path / "other", seed=1)
    merged = merge("slerp.yaml", {"sft": one, "selfd": other}, tmp_path / "merged")
    first, second = weights(one), weights(other)
    for name, weight in merged.items():
        torch.testing.assert_close(weight, slerp(first[name], second[name], 0.5), atol=1e-5, rtol=1e-4)
