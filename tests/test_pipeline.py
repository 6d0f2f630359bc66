"""A whole run on a tiny model, and the same run with the process killed in every stage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import metadata_load
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from tests.recipes import recipe, recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe, stages_to_run
from trl_prune.recipe import parse_recipe


def results(run_dir: Path) -> dict[str, str]:
    """Return every result file's text, with the run's own folder name taken out."""
    found = run_dir.rglob("result.json")
    return {str(path.relative_to(run_dir)): path.read_text() for path in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run_recipe(recipe(folder))


def test_every_stage_leaves_a_result(finished):
    folder, _ = finished
    assert set(results(folder / "run")) == {
        "score/result.json",
        "prune/result.json",
        "rewrite/result.json",
        "recover/sft/result.json",
        "recover/selfd/result.json",
        "evaluate/dense/result.json",
        "evaluate/pruned/result.json",
        "evaluate/sft/result.json",
        "evaluate/selfd/result.json",
        "report/result.json",
    }
    assert not list((folder / "run").rglob("pending.json"))
    assert not list((folder / "run").rglob("*.part"))


def test_every_model_is_an_ordinary_checkpoint_that_names_its_root(finished):
    folder, run = finished
    for name in ("pruned", "sft", "selfd"):
        _, loading = AutoModelForCausalLM.from_pretrained(run.model_dir(name), output_loading_info=True)
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        assert read_provenance(run.model_dir(name)).dense["path"] == str(folder / "dense")
        assert (run.model_dir(name) / "LICENSE").is_file()


def test_the_page_contains_the_figures_and_loads_nothing(finished):
    folder, _ = finished
    page = (folder / "run" / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((folder / "run" / "report").glob("*.png"))) >= 6
    assert "<img" in page
    assert 'src="http' not in page
    table = json.loads((folder / "run" / "report" / "recovery.json").read_text())
    assert {line["group"] for line in table["lines"]} == {"all tasks"}  # its one task is of one kind
    markdown = (folder / "run" / "report" / "report.md").read_text()
    for line in table["lines"]:
        score = line["recovery"]["score"]
        assert f"| {line['model']} | {score['value']:.3f} ± {score['stderr']:.3f} |" in markdown
    assert "What is" in markdown
    assert "Why?" in markdown


def test_a_second_run_does_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    run_recipe(recipe(folder))
    after = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {".lock"}


def test_a_dry_run_after_the_run_skips_everything(finished):
    folder, _ = finished
    lines = list(plan(recipe(folder)))
    assert not [line for line in lines if line.startswith("  run ")]
    assert len([line for line in lines if line.startswith("  skip")]) == 10


def test_a_dry_run_writes_nothing_and_prints_the_plan(tmp_path):
    lines = "\n".join(plan(recipe(tmp_path, "planned")))
    assert not (tmp_path / "planned").exists()
    assert "num_hidden_layers 4 -> 2, blocks by angular_distance" in lines
    assert "24 rows" in lines
    assert "sft on references" in lines
    assert "LoRA r=2" in lines


@pytest.mark.slow
def test_a_changed_arm_redoes_that_arm_and_what_follows(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "run", tmp_path / "run")
    before = results(tmp_path / "run")
    values = recipe_values(folder) | {"output": str(tmp_path / "run")}
    values["recover"]["sft"]["args"] = values["recover"]["sft"]["args"] | {"learning_rate": 5e-3}
    run_recipe(parse_recipe(values, "test"))
    after = results(tmp_path / "run")
    changed = {name for name in after if after[name] != before[name]}
    assert {"recover/sft/result.json"} <= changed
    assert changed <= {"recover/sft/result.json", "evaluate/sft/result.json", "report/result.json"}


def pruned(tmp_path, **prune):
    """Run the score and prune stages alone."""
    return run_recipe(recipe(tmp_path, prune=prune, recover={}, rewrite=None, **SCORE_AND_PRUNE))


SCORE_AND_PRUNE = {"evaluate": {"tasks": [], "questions": []}}


@pytest.mark.parametrize(
    "by",
    [
        "block_influence",
        "kl",
        *(
            pytest.param(by, marks=pytest.mark.slow)
            for by in ("deepest", "random", "perplexity", "task:probe_plurals")
        ),
    ],
)
def test_every_way_to_choose_blocks(tmp_path, by):
    is_measured = by in ("perplexity", "kl") or "task" in by
    run = pruned(tmp_path, by=by, target={"layers": 2}, strategy="single" if is_measured else "greedy")
    assert len(run.folder.require("prune").metrics["removed"]) == 2
    assert is_measured == (run.folder.result("score") is None)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ({"intermediate_size": 20}, {"intermediate_size": 20}),
        ({"hidden_size": 24, "layers": 3}, {"hidden_size": 24, "num_hidden_layers": 3}),
        ({"num_attention_heads": 2}, {"num_attention_heads": 2, "num_key_value_heads": 2}),
        ({"num_key_value_heads": 1}, {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ({"share": 0.8, "axes": ["intermediate_size", "hidden_size"]}, {"hidden_size": 24}),
    ],
)
def test_every_axis_is_cut_from_a_recipe(tmp_path, target, kept):
    run = pruned(tmp_path, target=target)
    metrics = run.folder.require("prune").metrics
    assert metrics["kept"] == {"num_hidden_layers": 4} | kept
    model = AutoModelForCausalLM.from_pretrained(run.model_dir("pruned"))
    assert model.num_parameters() == metrics["pruned"]["parameters"] < metrics["dense"]["parameters"]
    assert [edit["repair"] for edit in read_provenance(run.model_dir("pruned")).edits] == [
        record["repair"] for record in metrics["repairs"]
    ]


def test_a_cut_in_rounds_scores_anew_before_each(tmp_path):
    run = pruned(tmp_path, target={"layers": 2, "intermediate_size": 16}, rounds=2)
    keep = json.loads(run.folder.output("prune", "keep").read_text())
    assert len(keep["num_hidden_layers"]) == 2
    assert {len(neurons) for neurons in keep["intermediate_size"]} == {16}
    assert not (run.folder.path / "prune" / "rounds").exists()


def test_repairs_by_name_and_checked_logits(tmp_path):
    run = pruned(tmp_path, target={"hidden_size": 16}, repairs={"norm_rescale": {}}, check_logits=True)
    assert [record["repair"] for record in run.folder.require("prune").metrics["repairs"]] == ["norm_rescale"]
    with pytest.raises(InputError, match="prune.repairs: 'glue' is not a repair; allowed: head_merge"):
        pruned(tmp_path, target={"hidden_size": 16}, repairs={"glue": {}})


def test_a_depth_cut_comes_with_a_recipe_for_mergekit_and_a_card(tmp_path):
    run = pruned(tmp_path, target={"layers": 3}, repairs={}, check_logits=True)
    recipe_text = yaml.safe_load(run.folder.output("prune", "passthrough").read_text())
    ranges = [piece["sources"][0]["layer_range"] for piece in recipe_text["slices"]]
    assert sum(end - start for start, end in ranges) == 3
    card = (run.model_dir("pruned") / "README.md").read_text()
    assert "num_hidden_layers 3" in card
    assert metadata_load(run.model_dir("pruned") / "README.md")["tags"] == ["trl-prune", "pruned"]


def test_keep_by_hand_and_messages_without_arms(tmp_path):
    values = recipe_values(tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"messages": row["prompt"] + row["completion"]}) for row in ROWS)
    )
    values |= {"prune": {"keep": {"num_hidden_layers": [0, 1, 3]}}}
    values["recover"] = {"selfd": values["recover"]["sft"] | {"data": "rewritten"}}
    run = run_recipe(parse_recipe(values, "test"))
    assert run.folder.require("prune").metrics["removed"] == [2]
    assert run.folder.result("report") is not None


def test_a_verb_first_runs_what_it_needs(tmp_path):
    run_recipe(recipe(tmp_path), ["prune"])
    before = results(tmp_path / "run")
    assert set(before) == {"score/result.json", "prune/result.json"}
    run_recipe(recipe(tmp_path, score={"samples": 4}), ["prune"])
    after = results(tmp_path / "run")
    assert all(after[name] != before[name] for name in before), "another calibration set, so scores and cut are redone"


def test_stages_are_in_order_with_all_they_need(tmp_path):
    whole = recipe(tmp_path)
    assert stages_to_run(whole, None) == ["score", "prune", "rewrite", "recover", "evaluate", "report"]
    assert stages_to_run(whole, ["report"]) == stages_to_run(whole, None)
    assert stages_to_run(whole, ["rewrite"]) == ["rewrite"]
    assert stages_to_run(whole, ["recover"]) == ["score", "prune", "rewrite", "recover"]
    assert stages_to_run(whole, ["recover"], only=True) == ["recover"]
    by_hand = recipe(tmp_path, prune={"keep": {"num_hidden_layers": [0, 1]}}, recover={}, rewrite=None)
    assert stages_to_run(by_hand, ["evaluate"]) == ["prune", "evaluate"]
    dense_only = recipe(tmp_path, evaluate={"models": ["dense"]})
    assert stages_to_run(dense_only, ["evaluate"]) == ["evaluate"]


def test_only_runs_one_stage_on_results_that_exist(tmp_path):
    with pytest.raises(InputError, match="run `trl-prune score` first, or leave out --only"):
        run_recipe(recipe(tmp_path), ["prune"], only=True)
    run_recipe(recipe(tmp_path), ["score"], only=True)
    run_recipe(recipe(tmp_path), ["prune"], only=True)
    assert set(results(tmp_path / "run")) == {"score/result.json", "prune/result.json"}


def test_only_refuses_results_of_other_settings(tmp_path):
    run_recipe(recipe(tmp_path), ["score"])
    with pytest.raises(InputError, match="score has other settings.*run `trl-prune score` again first, or leave out"):
        run_recipe(recipe(tmp_path, score={"samples": 4}), ["prune"], only=True)


def test_only_finds_missing_results_before_anything_starts(tmp_path):
    one_arm = recipe(tmp_path)
    with pytest.raises(InputError, match="score has no result yet.*first, or leave out --only"):
        list(plan(one_arm, ["prune"], only=True))
    run_recipe(one_arm, ["prune"])
    with pytest.raises(InputError, match="recover/sft has no result yet"):
        run_recipe(one_arm, ["evaluate"], only=True)
    assert not (tmp_path / "run" / "evaluate").exists()
    shutil.rmtree(tmp_path / "run" / "score")
    with pytest.raises(InputError, match="score has no result yet"):
        run_recipe(recipe(tmp_path, evaluate={"models": ["dense", "pruned"]}), ["evaluate"], only=True)


def test_a_named_stage_without_work_is_refused(tmp_path):
    with pytest.raises(InputError, match="the recipe's `recover` section names nothing to do"):
        run_recipe(recipe(tmp_path, recover={}, rewrite=None), ["recover"])


def test_only_refuses_results_of_another_chat_template(tmp_path):
    run_recipe(recipe(tmp_path), ["score"])
    template = tmp_path / "dense" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(InputError, match="has other settings or inputs"):
        run_recipe(recipe(tmp_path), ["prune"], only=True)


def test_the_disk_is_checked_first(tmp_path, monkeypatch):
    monkeypatch.setattr("trl_prune.pipeline.disk_needed", lambda run: 10**18)
    with pytest.raises(InputError, match="needs 1000000000.0 GB and has"):
        run_recipe(recipe(tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_multi_stage_run_keeps_the_first_dense_model_as_root(tmp_path):
    first = run_recipe(recipe(tmp_path, recover={}, rewrite=None), ["score", "prune"])
    values = recipe_values(tmp_path, "second") | {
        "model": str(first.model_dir("pruned")),
        "recover": {},
        "rewrite": None,
    }
    second = run_recipe(parse_recipe(values | {"prune": {"target": {"layers": 1}}}, "test"), ["score", "prune"])
    provenance = read_provenance(second.model_dir("pruned"))
    assert provenance.dense["path"] == str(tmp_path / "dense")
    assert len(provenance.keep["num_hidden_layers"]) == 1
    assert set(provenance.keep["num_hidden_layers"]) <= set(
        read_provenance(first.model_dir("pruned")).keep["num_hidden_layers"]
    )


KILL_AT = {
    "score": "score/pending.json",
    "select": "select/measured/scores/scores.done",
    "rewrite": "rewrite/answers/*.jsonl",
    "recover": "recover/sft/checkpoints/checkpoint-*/trainer_state.json",
    "lora": "recover/selfd/checkpoints/checkpoint-*",
    "evaluate": "evaluate/pruned/pending.json",
}


def start(recipe_path: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trl_prune.cli", "run", str(recipe_path)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen, run_dir: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(run_dir.glob(pattern)):
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow(minutes=3)  # seven starts of the whole stack
@pytest.mark.parametrize("stages", [list(KILL_AT)])
def test_a_run_killed_in_every_stage_equals_an_uninterrupted_one(tmp_path, stages):
    values = recipe_values(tmp_path, "broken")
    values["select"] = {"budget": 0.4, "embedder": "hidden_states", "clusters": 2, "near_duplicates": None}
    for arm in values["recover"].values():
        arm["args"]["num_train_epochs"] = 8  # long enough to be killed in, and past its first epoch
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    for stage in stages:
        kill_when(start(path), tmp_path / "broken", KILL_AT[stage])
    last = start(path)
    _, stderr = last.communicate(timeout=300)
    assert last.returncode == 0, stderr.decode()[-2000:]
    run_recipe(parse_recipe(values | {"output": str(tmp_path / "unbroken")}, "test"))
    broken, unbroken = results(tmp_path / "broken"), results(tmp_path / "unbroken")
    assert broken.keys() == unbroken.keys()
    assert broken == unbroken


def rows_of_all_kinds(number):
    user = {"role": "user", "content": f"What is {number} plus 1?"}
    answer = {"role": "assistant", "content": f"It is {number + 1}. The answer is {number + 1}."}
    call = {"function": {"name": "add", "arguments": {"a": number, "note": None}}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [
        {"prompt": f"{number} + 1 = ", "completion": str(number + 1), "answer": number},
        {"messages": [user, answer], "answer": str(number), "text": "as text"},
        {"text": f"Number {number} is a number."},
        {"conversations": [{"from": "human", "value": f"Hi {number}"}, {"from": "gpt", "value": "Hello"}]},
        {"messages": [user, calling, {"role": "tool", "content": "3"}, answer]},
        {"messages": [user, calling]},
        {"messages": [user, answer, user]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": f"Hi {number}"}]}, answer]},
        {"messages": [answer]},
        {"messages": [{"role": "system", "content": f"Be {number}."}]},
    ]


@pytest.mark.slow
def test_rows_of_all_kinds_go_through_every_verb(tmp_path, caplog):
    values = recipe_values(tmp_path)
    rows = [row for number in range(3) for row in rows_of_all_kinds(number)]
    texts = [{"text": f"Another text {number}."} for number in range(3)] + [
        rows_of_all_kinds(number)[1] for number in (7, 8)
    ]
    for name, contents in (("rows", [*rows, {"messages": []}]), ("held_out", texts)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, contents)))
    args = values["recover"]["sft"]["args"]
    arms = {"sft": {"data": "references"}, "packed": {"args": {"packing": True}}, "kd": {"method": "kd"}}
    values |= {
        "rows": {"on_error": "skip"},
        "select": {"budget": 12, "embedder": "hidden_states", "clusters": 1, "near_duplicates": None},
        "cache_teacher": {"batch_size": 4},
        "recover": {name: arm | {"args": args | arm.get("args", {})} for name, arm in arms.items()},
    }
    values["evaluate"] |= {"held_out": {"path": str(tmp_path / "held_out.jsonl")}, "models": ["dense", "sft"]}
    run = run_recipe(parse_recipe(values, "test"))
    assert run.folder.require("evaluate", "sft").metrics["held-out text"]["kl"] >= 0
    assert all(run.folder.require("recover", name).metrics["tokens"] > 0 for name in arms)
    assert "1 of 31 rows are skipped" in caplog.text
