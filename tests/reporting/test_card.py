"""The card of a checkpoint is one that the hub can read, with its scores, and tells nothing of the machine."""

import json
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load

from tests.recipes import recipe_values
from trl_prune.checkpoints import fingerprint, read_provenance, write_provenance
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.card import licence_of, write_card
from trl_prune.reporting.making import how_made
from trl_prune.runs.context import Run


HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SCORES = {
    "dense": {"tiny_choice": TaskScore("tiny_choice", "acc", [1.0, 1.0, 0.0, 1.0])},
    "pruned": {"tiny_choice": TaskScore("tiny_choice", "acc", [1.0, 0.0, 0.0, 0.0])},
    "sft": {"tiny_choice": TaskScore("tiny_choice", "acc", [1.0, 1.0, 0.0, 0.0])},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a pruned model and one arm."""
    values = recipe_values(tmp_path_factory.mktemp("cards"))
    arm = values["recover"]["sft"]
    values["recover"] = {"sft": arm | {"peft": {"r": 2}, "args": arm["args"] | {"max_steps": 1}}}
    del values["rewrite"]
    return run_recipe(parse_recipe(values, "test"), ["recover"])


def metrics(run, name):
    return run.folder.require(*(("prune",) if name == "pruned" else ("recover", name))).metrics


@pytest.mark.parametrize("name", ["pruned", "sft"])
def test_a_stage_leaves_a_card_without_scores_and_without_the_place_of_anything(run, name):
    folder = run.model_dir(name)
    card = (folder / "README.md").read_text()
    metadata = metadata_load(folder / "README.md")
    assert str(run.folder.path.parent) not in card
    assert metadata["library_name"] == "transformers"
    assert not {"base_model", "base_model_relation", "license", "model-index"} & set(metadata)
    text = ModelCard(card).text
    assert "Not measured yet" in text
    assert "blocks by angular_distance ([2403.17887](https://huggingface.co/papers/2403.17887))" in text
    assert "num_hidden_layers 2" in text
    parameters = metrics(run, "pruned")["pruned"]["parameters"]
    assert f"| {parameters:,} |" in text
    assert ("LoRA of rank 2" in text) == (name == "sft")
    assert f"trl-prune {'prune' if name == 'pruned' else 'recover'} recipe.yaml" in text
    assert "TRL 1." in text
    assert "see `LICENSE`" in text


def test_the_recipe_in_a_card_is_the_runs_own(run):
    text = ModelCard((run.model_dir("sft") / "README.md").read_text()).text
    block = text.split("````yaml\n")[1].split("````")[0]
    published, own = yaml.safe_load(block), yaml.safe_load((run.folder.path / "recipe.yaml").read_text())
    assert published["recover"] == own["recover"]
    assert parse_recipe(own, "test") == run.recipe


def test_an_evaluated_model_has_its_scores_in_table_and_metadata(run):
    folder = run.model_dir("sft")
    before = fingerprint(folder)
    write_card(run, "sft", folder, metrics(run, "sft"), SCORES)
    assert fingerprint(folder) == before
    result = metadata_load(folder / "README.md")["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "tiny_choice"
    assert result["metrics"] == [{"type": "acc", "value": 0.5, "name": "acc"}]
    card = (folder / "README.md").read_text()
    row = "| tiny_choice | acc | 4 | 0.750 ± 0.250 | 0.250 ± 0.250 | 0.500 ± 0.289 | 67 % |"
    assert row in card
    assert "trl-prune evaluate recipe.yaml" in card


def test_a_merge_names_what_it_was_made_of_without_its_place(run, tmp_path):
    merge = {"recipe": "slerp", "models": ["sft", str(tmp_path / "other")], "t": 0.25}
    values = run.recipe.model_dump(mode="json", exclude_unset=True) | {"merge": {"both": merge}}
    merging = Run(parse_recipe(values, "test"))
    sentence = how_made(merging, "both", {}, {"cut": ["num_hidden_layers"]})[-1]
    assert sentence == "Merged with mergekit by slerp, t 0.25 from `sft`, `other`."
    write_card(merging, "both", run.model_dir("sft"), {})
    card = (run.model_dir("sft") / "README.md").read_text()
    assert "# dense, pruned, recovered and merged: both" in card
    assert "trl-prune merge recipe.yaml" in card
    assert str(tmp_path) not in card
    assert {"merge", "mergekit"} <= set(metadata_load(run.model_dir("sft") / "README.md")["tags"])


def test_the_licence_and_hub_id_of_the_dense_model_are_named(run, tmp_path):
    folder = run.model_dir("pruned")
    (run.dense_dir / "README.md").write_text("---\nlicense: apache-2.0\n---\n# The dense model\n")
    provenance = read_provenance(folder)
    write_provenance(replace(provenance, dense=provenance.dense | {"path": HUB}), folder)
    write_card(run, "pruned", folder, metrics(run, "pruned"))
    metadata = metadata_load(folder / "README.md")
    assert metadata["base_model"] == HUB
    assert metadata["base_model_relation"] == "finetune"
    assert metadata["license"] == "apache-2.0"
    assert f"[{HUB}](https://huggingface.co/{HUB})" in (folder / "README.md").read_text()
    assert json.loads((folder / "trl_prune.json").read_text())["dense"]["path"] == HUB


BOMB = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nlicense: [*c, *c, *c, *c]"


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("license: apache-2.0", {"license": "apache-2.0"}),
        ("license: other\nlicense_link: /home/me/models/LICENSE", {"license": "other", "license_link": "LICENSE"}),
        (BOMB, {}),
        ("license: !!python/object/apply:os.system ['true']", {}),
        ("license: [", {}),
        ("- license", {}),
    ],
)
def test_the_licence_of_a_card_that_anyone_may_have_written_is_a_name(tmp_path, metadata, licence):
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# A model")
    assert licence_of(tmp_path) == licence
