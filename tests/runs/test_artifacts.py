import json
import multiprocessing

import pytest

from trl_prune.errors import InputError
from trl_prune.runs.artifacts import RunFolder, StageOutput, config_hash


INPUTS, SETTINGS = {"dense": "abc"}, {"samples": 3}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def finish(folder, inputs=INPUTS, settings=SETTINGS, text="out"):
    stage_dir = folder.begin("score", "", inputs, settings)
    (stage_dir / "scores").write_text(text)
    folder.finish("score", "", StageOutput({"scores": "scores"}, {"n": 1}, {"seconds": 1.0}))


def test_a_result_that_fits_is_done(folder):
    finish(folder)
    assert folder.is_done("score", "", INPUTS, SETTINGS)
    assert not folder.is_done("score", "", {"dense": "other"}, SETTINGS)
    assert not folder.is_done("score", "", INPUTS, {"samples": 4})
    assert not folder.is_done("prune", "", INPUTS, SETTINGS)
    folder.output("score", "scores").unlink()
    assert not folder.is_done("score", "", INPUTS, SETTINGS)


def test_unfinished_work_of_the_same_kind_is_kept_other_is_cleared(folder):
    (folder.begin("score", "", INPUTS, SETTINGS) / "partial").write_text("half")
    assert (folder.begin("score", "", INPUTS, SETTINGS) / "partial").is_file()
    assert not (folder.begin("score", "", INPUTS, {"samples": 4}) / "partial").exists()


def test_a_finished_result_of_other_settings_is_cleared(folder):
    finish(folder)
    stage_dir = folder.begin("score", "", INPUTS, {"samples": 4})
    assert [path.name for path in stage_dir.iterdir()] == ["pending.json"]


def test_result_hash_follows_what_was_made(folder, tmp_path):
    finish(folder)
    other, same = RunFolder(tmp_path / "other"), RunFolder(tmp_path / "same")
    finish(other, text="another")
    finish(same)
    assert folder.result_hash("score") == same.result_hash("score") != other.result_hash("score")


def test_an_output_that_changed_after_it_was_written_is_named_where_it_is_used(folder):
    finish(folder)
    path = folder.output("score", "scores")
    path.write_text("0ut")
    assert folder.output("score", "scores") == path  # compared once in a process
    with pytest.raises(InputError, match=f"{path} has changed since it was written; delete {path.parent}"):
        RunFolder(folder.path).output("score", "scores")


def test_what_is_done_again_names_what_is_not_as_it_was(folder, caplog):
    caplog.set_level("INFO", "trl_prune")
    for inputs, settings, said in (
        ({"dense": "other"}, SETTINGS, "inputs (dense)"),
        (INPUTS, {"samples": 4}, "settings"),
        ({}, SETTINGS, "inputs (dense)"),
    ):
        finish(folder)
        folder.begin("score", "", inputs, settings)
        assert caplog.messages[-1] == f"{folder.stage_dir('score')} has other {said} and is redone"


def test_what_a_killed_process_was_writing_is_removed(folder):
    with folder.lock("a"):
        finish(folder)
    file, inner = folder.path / ".run.json.77.part", folder.path / "score" / ".model.part"
    inner.mkdir()
    for path in (file, inner / "weights"):
        path.write_text("half")
    with folder.lock("a"):
        assert not file.exists()
        assert not inner.exists()
        assert folder.output("score", "scores").read_text() == "out"


def test_volatile_outputs_do_not_count(folder, tmp_path):
    for run, text in ((folder, "1 s"), (RunFolder(tmp_path / "other"), "2 s")):
        (run.begin("report", "", INPUTS, SETTINGS) / "page").write_text(text)
        run.finish("report", "", StageOutput({"page": "page"}, volatile=frozenset({"page"})))
    assert folder.result_hash("report") == RunFolder(tmp_path / "other").result_hash("report")


def test_missing_results_name_the_verb_to_run(folder):
    with pytest.raises(InputError, match="run `trl-prune score` first"):
        folder.require("score")


def test_a_folder_belongs_to_one_model(folder):
    with folder.lock("a"):
        folder.note(dtype="float32")
    with folder.lock("a"):
        assert folder.notes() == {"model": "a", "dtype": "float32"}
    with pytest.raises(InputError, match="holds a run of model 'a', not 'b'"):
        folder.check("b")


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and no trl-prune run"):
        RunFolder(tmp_path).check("a")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "notes.txt").check("a")


def hold(path, held, release):
    with RunFolder(path).lock("a"):
        held.set()
        release.wait(20)


def test_a_folder_in_use_is_refused_until_the_other_process_ends(folder):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(folder.path, held, release))
    holder.start()
    assert held.wait(60)
    with pytest.raises(InputError, match="in use by another"), folder.lock("a"):
        pass
    holder.kill()  # as `kill -9` would: no clean-up runs
    holder.join()
    with folder.lock("a"):
        pass


def test_config_hash_ignores_the_order_of_keys():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 2, "b": 1})


def test_results_are_json_with_the_promised_keys(folder):
    finish(folder)
    result = json.loads((folder.stage_dir("score") / "result.json").read_text())
    assert set(result) == {"stage", "inputs", "config_hash", "outputs", "metrics"}
