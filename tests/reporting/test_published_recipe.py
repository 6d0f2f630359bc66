"""What is published of a recipe names no folder of a machine and no credential."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes import recipe
from trl_prune.reporting.published_recipe import is_hub_id, published_recipe, published_text


PART = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(PART, min_size=1, max_size=5), st.sampled_from(["", "~"]), PART)
def test_an_absolute_path_keeps_its_last_part(folders, home, name):
    path = f"{home}/{'/'.join(folders)}/{name}"
    assert published_text(path) == name
    assert published_text(f"text of {path}, and more") == f"text of {name}, and more"


@pytest.mark.parametrize(
    "text",
    ["https://huggingface.co/papers/2410.09982", "owner/name", "runs/one", "./rows.jsonl", "a and/or b", "3 / 4", "/"],
)
def test_addresses_hub_ids_and_relative_paths_stay(text):
    assert published_text(text) == text


def test_credentials_go_and_other_tokens_stay(tmp_path):
    secret = "hf_" + "a1B2" * 8
    arm = {"data": "references", "args": {"hub_token": secret, "eos_token": "<|im_end|>", "run_name": f"x {secret}"}}
    server = {
        "url": "http://10.0.0.7:8000/v1",
        "model": "m",
        "headers": {"Authorization": "Bearer abc", "x-api-key": "d"},
    }
    rewrite = {"engine": "server", "engine_kwargs": server, "max_new_tokens": 7}
    text = published_recipe(recipe(tmp_path, recover={"sft": arm}, rewrite=rewrite))
    assert secret not in text
    assert "10.0.0.7" not in text
    assert str(tmp_path) not in text
    values = yaml.safe_load(text)
    assert values["recover"]["sft"]["args"] == {"eos_token": "<|im_end|>", "run_name": "x ..."}
    assert values["rewrite"]["max_new_tokens"] == 7
    assert values["model"] == "dense"


@pytest.mark.parametrize(
    "text", ["Bearer abc.def", "https://me:secret@host/x", "AKIAABCDEFGHIJKLMNOP", "github_pat_" + "1a" * 20]
)
def test_credentials_of_several_services_go(text):
    published = published_text(f"see {text} there")
    assert published.startswith("see ")
    assert published.endswith(" there")
    for part in ("abc", "secret", "AKIA", "1a1a"):
        assert part not in published


def test_a_folder_that_exists_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert not is_hub_id("owner/name")
    assert not is_hub_id("/owner/name")
    assert not is_hub_id("quickstart")
