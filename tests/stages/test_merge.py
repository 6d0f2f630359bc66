"""Merges of a run: trained arms become one, which is evaluated beside them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROWS, save_tiny
from tests.recipes import recipe, recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.cli import main
from trl_prune.errors import InputError
from trl_prune.pipeline import STAGES, disk_needed, plan, run_recipe
from trl_prune.recipe import load_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.merging import merges_as_yaml, printed_merges


SLERP = {"recipe": "slerp", "models": ["sft", "selfd"]}


def merging(folder, **sections):
    return recipe(folder, **sections)


def texts(path, count=6):
    path.write_text("\n".join(json.dumps({"text": f"Snow falls on {number} hills."}) for number in range(count)))
    return {"path": str(path)}


def test_merges_are_models_of_the_run(tmp_path):
    merges = {"soup": {"recipe": "linear", "models": ["sft", "selfd"]}, "slerp": SLERP}
    found = merging(tmp_path, merge=merges)
    assert found.models == ["dense", "pruned", "sft", "selfd", "soup", "slerp"]
    assert [found.stage_of(name) for name in found.models[1:]] == ["prune", "recover", "recover", "merge", "merge"]
    assert "merge" in STAGES["evaluate"].needs(found)
    assert set(STAGES["merge"].needs(found)) == {"prune", "recover"}
    alone = merging(tmp_path, merge=SLERP)
    assert alone.models[-1] == "merge"
    lines = "\n".join(plan(alone))
    assert re.search(r"run +merge merge +slerp of sft and selfd", lines)
    assert disk_needed(Run(alone)) > disk_needed(Run(merging(tmp_path)))


CASES = {
    "a name of an arm": ({"sft": SLERP}, "merge.sft has the name of an arm of `recover`"),
    "a reserved name": ({"dense": SLERP}, "merge.dense: a merge's name is letters, digits, - and _"),
    "an unknown model": (
        SLERP | {"models": ["sft", "slfd"]},
        "merge.merge.models names 'slfd'; did you mean 'selfd'?",
    ),
    "one model": (SLERP | {"models": ["sft"]}, "merge.models is ['sft']; list should have at least 2 items"),
    "a wrong key": (SLERP | {"weight": [1, 2]}, "unknown key 'merge.weight'; did you mean 'merge.parameters.weight'?"),
    "t out of range": (SLERP | {"t": 2}, "t is 2"),
    "a search without texts": (SLERP | {"t": "auto"}, "merge has a search and lacks `dev`"),
    "a grid for three models": (
        {"recipe": "linear", "models": ["sft", "selfd", "./c"], "search": {"grid": 7}, "dev": {"path": "x"}},
        "has search.grid 7 for 3 models; it is for two, and",
    ),
    "texts without a search": (SLERP | {"dev": {"path": "x"}}, "merge has dev and lacks `search` or `t: auto`"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_the_section_is_one_sentence(case, tmp_path):
    section, message = CASES[case]
    with pytest.raises(InputError) as error:
        merging(tmp_path, merge=section)
    assert message in str(error.value)


def test_a_line_is_named_for_one_merge_alone(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_values(tmp_path) | {"merge": SLERP | {"parameter": {}}}, sort_keys=False))

    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "parameter:" in text)
    with pytest.raises(InputError, match=rf"line {line}: unknown key 'merge.parameter'; did you mean 'merge.para"):
        load_recipe(path, [])


CHECKED = {
    "an unknown recipe": (SLERP | {"recipe": "slrp"}, "the merge recipe 'slrp' is neither shipped nor a file"),
    "an unknown parameter": (SLERP | {"parameters": {"k": 1}}, "the merge recipe 'slerp' has no parameter 'k'"),
    "a model twice": (SLERP | {"models": ["sft", "sft"]}, "models has 'sft' twice"),
    "a folder that is not there": (SLERP | {"models": ["sft", "./none"]}, "'./none' is neither a folder here"),
    "a base that is not there": (
        SLERP | {"recipe": "ties", "base": "./nowhere"},
        "'./nowhere' is neither a folder here",
    ),
    "three weights for two models": (
        SLERP | {"recipe": "linear", "parameters": {"weight": [1, 2, 3]}},
        "weight is [1, 2, 3]; wanted: one number, or one for each of the 2 models",
    ),
    "a model of another shape": (
        SLERP | {"models": ["sft", "{folder}/wide"]},
        "wide has model.embed_tokens.weight of shape [259, 64] and the pruned model [259, 32]",
    ),
    "a model of another depth": (
        SLERP | {"models": ["sft", "{folder}/dense"]},
        "dense has 4 blocks and the pruned model 2; merges are of models of one shape",
    ),
    "a model of unknown units": (
        SLERP | {"models": ["sft", "{folder}/short"]},
        "short has no trl_prune.json, and the pruned model has one",
    ),
    "folders of two shapes": (
        SLERP | {"models": ["{folder}/short", "{folder}/wide"]},
        "merges are of models of one shape",
    ),
    "nothing to search": (
        {"recipe": "karcher", "models": ["sft", "selfd"], "search": {}, "dev": {"path": "dev.jsonl"}},
        "has neither a single `t` nor a `weight` to search",
    ),
}


@pytest.mark.parametrize("case", CHECKED)
def test_a_mistake_is_found_before_anything_is_trained(case, tmp_path):
    section, message = CHECKED[case]
    save_tiny(tmp_path / "wide", hidden_size=64, num_hidden_layers=2)
    save_tiny(tmp_path / "short", num_hidden_layers=2)
    section = section | {"models": [model.format(folder=tmp_path) for model in section["models"]]}
    with pytest.raises(InputError) as error:
        run_recipe(merging(tmp_path, merge=section), ["merge"])
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_mergekit_cannot_merge_is_found_before_anything_is_trained(tmp_path):
    found = merging(tmp_path, merge=SLERP)
    save_tiny(tmp_path / "dense", "gpt_neox")
    with pytest.raises(InputError, match=r"merge.merge: mergekit reads the tensor .*attention.bias from models"):
        run_recipe(found, ["merge"])
    assert not (tmp_path / "run").exists()


def test_dev_texts_share_no_row_with_training_or_the_texts_that_are_reported(tmp_path):
    search = SLERP | {"t": "auto"}
    values = recipe_values(tmp_path)
    (tmp_path / "seen.jsonl").write_text(json.dumps(ROWS[3]))
    with pytest.raises(InputError, match=r"merge.merge.dev is .*seen.jsonl', and 1 of its 1 texts are rows of .*rows"):
        run_recipe(merging(tmp_path, merge=search | {"dev": {"path": str(tmp_path / "seen.jsonl")}}), ["merge"])
    dev = texts(tmp_path / "dev.jsonl")
    evaluate = values["evaluate"] | {"held_out": texts(tmp_path / "held_out.jsonl", count=3)}
    message = r"merge.merge.dev is .*, and 3 of its 6 texts are rows of .*held_out.jsonl', which is evaluate.held_out"
    with pytest.raises(InputError, match=message):
        run_recipe(merging(tmp_path, merge=search | {"dev": dev}, evaluate=evaluate), ["merge"])


@pytest.mark.slow
def test_arms_are_merged_and_the_merges_evaluated(tmp_path, caplog):
    caplog.set_level("INFO", "trl_prune")
    merges = {"slerp": SLERP, "ties": SLERP | {"recipe": "ties"}}
    run = run_recipe(merging(tmp_path, merge=merges))
    folder = tmp_path / "run" / "merge" / "slerp" / "model"
    assert run.model_dir("slerp") == folder
    assert read_provenance(folder).keep == read_provenance(run.model_dir("sft")).keep
    record = json.loads((folder / "merge.json").read_text())
    assert 0 < record["lerp"]["count"] == len(record["lerp"]["names"]) < record["lerp"]["of"] == 21
    assert "fell back to linear interpolation" in caplog.text
    pruned = str(run.model_dir("pruned").absolute())
    assert json.loads((run.model_dir("ties") / "merge.json").read_text())["base"] == pruned
    with pytest.raises(InputError, match="`merge` names 2 merges, and mergekit reads one from a file; give --output"):
        printed_merges(run.recipe, None)
    paths = printed_merges(run.recipe, str(tmp_path / "printed")).splitlines()
    printed = [yaml.safe_load(Path(path).read_text()) for path in paths]
    assert [document["merge_method"] for document in printed] == ["slerp", "ties"]
    assert printed[1]["base_model"] == pruned
    report = (tmp_path / "run" / "report" / "report.md").read_text()
    for name in merges:
        assert (tmp_path / "run" / "evaluate" / name / "results.json").is_file()
        assert f"| {name} |" in report
        assert "Merged with mergekit" in (run.model_dir(name) / "README.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "README.md"}
    run_recipe(merging(tmp_path, merge=merges))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_t_is_searched_on_dev_texts_and_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    section = SLERP | {"search": {"grid": 3, "refine": 1}, "dev": texts(tmp_path / "dev.jsonl"), "prove_ends": False}
    values = merging(tmp_path, merge=section)
    run_recipe(values, ["recover"])
    with pytest.raises(InputError, match="t or the weights are searched; run the merge first"):
        merges_as_yaml(values)
    import trl_prune.runs.merging as module

    measure, calls = module.measure_forgetting, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(module, "measure_forgetting", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(values, ["merge"])
    assert not (tmp_path / "run" / "merge" / "merge" / "model").exists()
    run = run_recipe(values, ["merge"])
    losses = json.loads((tmp_path / "run" / "merge" / "merge" / "search.json").read_text())
    assert len(calls) == len(losses) + 1  # the interrupted one is measured again, no other
    record = run.folder.require("merge", "merge").metrics
    assert record["search"]["loss"] == min(losses.values())
    assert yaml.safe_load(merges_as_yaml(values)["merge"])["parameters"] == record["parameters"]


@pytest.mark.slow
def test_the_command_line_prints_and_merges(tmp_path, capsys):
    folders = [str(save_tiny(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    assert main(["merge", "slerp", *folders, "t=0.3", "--print"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["parameters"] == {"t": 0.3}
    assert text.startswith("# mergekit-yaml FILE OUT --no-write-model-card")
    words = ["merge", "slerp", *folders, "t=0.3", "--output", str(tmp_path / "merged")]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"slerp of {folders[0]} and {folders[1]}, t 0.3\n"
    assert not (tmp_path / "merged").exists()
    wide = str(save_tiny(tmp_path / "wide", hidden_size=64))
    assert main(["merge", "slerp", folders[0], wide, "--dry-run"]) == 2
    assert "merges are of models of one shape" in capsys.readouterr().err
    texts(tmp_path / "dev.jsonl")
    assert main(["merge", "slerp", *folders, "t=auto", f"dev={tmp_path / 'dev.jsonl'}", "--print"]) == 2
    assert "t or the weights are searched; run the merge first" in capsys.readouterr().err
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'merged'}\n")
    for words, message in (
        ((), "is there already and is not overwritten"),
        (("t=3",), "t of the merge recipe 'slerp' is 3; wanted: a number from 0 to 1"),
        (("t=auto",), "t is 'auto', which is found on texts"),
    ):
        assert main(["merge", "slerp", *folders, "--output", str(tmp_path / "merged"), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["merge", "slerp", *folders]) == 2
    assert "requires --output FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_a_merge_that_was_killed_is_done_by_the_same_command(tmp_path):
    folders = [str(save_tiny(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    argv = [sys.executable, "-m", "trl_prune.cli", "merge", "slerp", *folders, "--output", str(tmp_path / "merged")]
    script = (
        "import os, signal, sys; from trl_prune.merging import merge; "
        "merge.verify_whole = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        f"from trl_prune.cli import main; main({argv[3:]!r})"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    left = {path.name for path in tmp_path.iterdir()} - {"0", "1"}
    assert left == {".merged.part", ".merged.scratch"}
    subprocess.run(argv, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} - {"0", "1"} == {"merged"}
