"""The command line as a user meets it: one sentence and exit code 2 for every mistake."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import SafetensorError

from tests.evaluation.lm_eval_files import write_results
from tests.recipes import recipe_values
from trl_prune.cli import SIGPIPE_STATUS, STAGE_VERBS, main
from trl_prune.pipeline import STAGES


def write(tmp_path, change=lambda values: None):
    values = recipe_values(tmp_path)
    change(values)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def refused(capsys, *argv):
    code = main(list(argv))
    error = capsys.readouterr().err
    output = [line for line in error.splitlines() if line.startswith("trl-prune:")]
    assert code == 2, error
    assert len(output) == 1, error
    assert "Traceback" not in error
    return output[0]


def test_verbs_and_stages_are_the_same_words():
    assert list(STAGE_VERBS) == list(STAGES)
    for name, stage in STAGES.items():
        assert sys.modules[stage.describe.__module__].__name__ == f"trl_prune.stages.{name}"


def test_help_names_every_verb_and_imports_nothing_heavy():
    script = "import sys; from trl_prune.cli import parser; print(parser().format_help()); print(sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for verb in ("quickstart", "run", "tasks", *STAGE_VERBS):
        assert f"    {verb.replace('_', '-')}" in output
    assert "distill" in output
    for heavy in ("torch", "transformers", "trl", "pydantic", "datasets", "matplotlib"):
        assert f"'{heavy}'" not in output


def test_tasks_prints_a_folder(capsys):
    assert main(["tasks"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "recovery_probes" / "recovery_probes.yaml").is_file()


def test_a_reader_that_has_enough_ends_the_command_quietly():
    command = [sys.executable, "-m", "trl_prune.cli", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == SIGPIPE_STATUS


def test_dry_run_prints_the_plan(tmp_path, capsys):
    assert main(["run", write(tmp_path), "--dry-run", "prune.target.layers=3"]) == 0
    assert "num_hidden_layers 4 -> 3, blocks by angular_distance" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_verbs_run_alone(tmp_path, capsys):
    path = write(tmp_path)
    for verb in ("score", "prune"):
        assert main([verb, path]) == 0
    assert (tmp_path / "run" / "prune" / "model" / "config.json").is_file()
    assert str(tmp_path / "run" / "prune") in capsys.readouterr().out


def test_the_teacher_is_cached_by_its_verb(tmp_path, capsys):
    def distil(values):
        values["recover"] = {"kd": {"method": "kd", "data": "references", "args": values["recover"]["sft"]["args"]}}
        values["cache_teacher"] = {}

    assert main(["cache-teacher", write(tmp_path, distil)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "cache_teacher")
    assert (tmp_path / "run" / "cache_teacher" / "cache" / "cache.json").is_file()


def test_unknown_devices_are_refused(tmp_path, capsys):
    output = refused(capsys, "run", write(tmp_path), "--accelerate_config", "fsdp3")
    assert "--accelerate_config 'fsdp3' is not a file; allowed: a path, or fsdp1, fsdp2" in output
    assert not (tmp_path / "run").exists()


def change_dataset(tmp_path, text):
    return lambda values: (tmp_path / "rows.jsonl").write_text(text)


CASES = {
    "unknown key": (lambda v, t: v.update(prunee={}), "unknown key 'prunee'; did you mean 'prune'?"),
    "wrong type": (lambda v, t: v.update(seed="many"), "seed is 'many'"),
    "too many layers": (
        lambda v, t: v["prune"].update(target={"layers": 9}),
        "prune.target: num_hidden_layers is 9; allowed: 1..4 (the model has 4)",
    ),
    "keep out of range": (
        lambda v, t: v.update(prune={"keep": {"num_hidden_layers": [0, 7]}}),
        "keep.num_hidden_layers is [0, 7]; wanted: increasing indices without repeats in 0..3",
    ),
    "no usable columns": (
        lambda v, t: (t / "rows.jsonl").write_text('{"question": "a", "answer": "b"}'),
        "has the columns question, answer; wanted: prompt + completion or messages or text",
    ),
    "empty dataset": (lambda v, t: (t / "rows.jsonl").write_text(""), "is empty"),
    "missing dataset": (lambda v, t: (t / "rows.jsonl").unlink(), "is not a local file"),
    "text cannot be rewritten": (
        lambda v, t: (t / "rows.jsonl").write_text('{"text": "some words"}'),
        "without answers to rewrite",
    ),
    "unknown answer type": (
        lambda v, t: (t / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b", "answer_type": "x"})),
        "answer_type in the dataset is 'x', an unknown answer type",
    ),
    "broken chat template": (
        lambda v, t: (
            (t / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}'),
            (t / "dense" / "chat_template.jinja").write_text("{% for"),
        ),
        "chat template rejects a conversation of the roles user: ",
    ),
    "hub model without network": (lambda v, t: v.update(model="someone/model"), "the hub cannot be reached"),
    "hub dataset without network": (
        lambda v, t: v["dataset"].update(path="someone/rows"),
        "cannot be loaded from the Hub",
    ),
    "unknown family": (
        lambda v, t: rewrite_config(t, model_type="hrm_text"),
        "model type 'hrm_text' cannot be pruned",
    ),
    "unknown model type": (lambda v, t: rewrite_config(t, model_type="lama"), "config.json cannot be used"),
    "missing weights": (lambda v, t: (t / "dense" / "model.safetensors").unlink(), "holds no safetensors weights"),
    "corrupt weights": (
        lambda v, t: (t / "dense" / "model.safetensors").write_bytes(b"\x08" + b"\0" * 30),
        "is corrupt",
    ),
    "output holds something else": (
        lambda v, t: ((t / "run").mkdir(), (t / "run" / "thesis.tex").write_text("x")),
        "is not empty and no trl-prune run",
    ),
    "output holds another run": (
        lambda v, t: ((t / "run").mkdir(), (t / "run" / "run.json").write_text('{"model": "another"}')),
        "holds a run of model 'another'",
    ),
    "unknown training argument": (
        lambda v, t: v["recover"]["sft"]["args"].update(learning_rat=1),
        "recover.sft.args.learning_rat is not an accepted argument; did you mean 'args.learning_rate'?",
    ),
    "wrong training argument": (
        lambda v, t: v["recover"]["sft"]["args"].update(lr_scheduler_type="wavy"),
        "recover.sft.args",
    ),
    "no tokenizer": (
        lambda v, t: [path.unlink() for path in (t / "dense").glob("tokenizer*")],
        "has no tokenizer that can be read",
    ),
}


def rewrite_config(tmp_path, **changes):
    path = tmp_path / "dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("case", CASES)
def test_input_errors_are_one_sentence_before_anything_is_written(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    change, message = CASES[case]
    path = write(tmp_path, lambda values: change(values, tmp_path))
    assert message in refused(capsys, "run", path)
    left = {entry.name for entry in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert left <= {"thesis.tex", "run.json"}


def test_missing_shard_of_an_index(tmp_path, capsys):
    path = write(tmp_path)
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "dense" / "model.safetensors").unlink()
    (tmp_path / "dense" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors is missing" in refused(capsys, "run", path)


def test_no_recipe_two_recipes_missing_recipe(tmp_path, capsys):
    assert "requires a recipe file" in refused(capsys, "run")
    assert "one recipe at a time" in refused(capsys, "run", "a.yaml", "b.yaml")
    assert "cannot be read: No such file" in refused(capsys, "run", str(tmp_path / "none.yaml"))


def test_output_in_use(tmp_path, capsys):
    from trl_prune.runs.artifacts import RunFolder

    path = write(tmp_path)
    with RunFolder(tmp_path / "run").lock(str(tmp_path / "dense")):
        assert "in use by another" in refused(capsys, "run", path)
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_reported_for_every_type_of_error(error, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("trl_prune.pruning.surgery.shards.save_file", full)
    path = write(
        tmp_path, lambda values: values.update(prune={"keep": {"num_hidden_layers": [0, 1, 3]}, "repairs": {}})
    )
    sentence = refused(capsys, "prune", path)
    assert sentence.endswith(f"{tmp_path / 'run' / 'prune'} failed: No space left on device; the same command resumes")
    assert not (tmp_path / "run" / "prune" / "model").exists()


def test_compare_prints_a_verdict_and_writes_pages(tmp_path, capsys):
    paths = [
        str(write_results(tmp_path / name, {"a": right}, model=name))
        for name, right in (("one", [1] * 30 + [0] * 10), ("two", [0] * 20 + [1] * 10 + [0] * 10))
    ]
    assert main(["compare", *paths, "--output", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert output.startswith("two keeps 33 % of multiple choice")
    assert output.rstrip().endswith(f"comparison: {tmp_path / 'out' / 'comparison.html'}")
    assert "--log_samples" in refused(capsys, "compare", paths[0], str(without_samples(tmp_path)))
    assert "does not exist" in refused(capsys, "compare", paths[0], str(tmp_path / "none"))
    assert "wanted: TASK=METRIC" in refused(capsys, "compare", *paths, "--metric", "acc")
    assert "has no metric 'f1'; it has acc" in refused(capsys, "compare", *paths, "--metric", "a=f1")


def without_samples(tmp_path):
    path = write_results(tmp_path / "bare", {"a": [1, 0]})
    next(path.parent.glob("samples_*")).unlink()
    return path
