"""Disks that take no more, or that change what they hold: one sentence, nothing half-written, and the way on."""

import resource
from contextlib import contextmanager

import pytest
import yaml

from tests.recipes import recipe_values
from trl_prune.cli import main
from trl_prune.data.teacher_cache.shards import shard_path


STAGES = ["score", "prune", "cache-teacher", "recover"]
# Bytes: less than any file, and less than weights.
LIMITS = [0, 5000]


@contextmanager
def largest_file(size):
    """Let no file become larger, as on a full disk: writes fail with the system's own error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def recipe(tmp_path):
    values = recipe_values(tmp_path)
    args = values["recover"]["sft"]["args"]
    values |= {
        "rewrite": None,
        "cache_teacher": {"batch_size": 4},
        "recover": {
            "sft": {"data": "references", "args": args},
            "kd": {"method": "kd", "data": "references", "args": args},
        },
        "evaluate": {"tasks": []},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refused(capsys, *argv):
    """Run the command line, check that it ends in one sentence and exit code 2, and return the sentence."""
    capsys.readouterr()
    code = main([str(word) for word in argv])
    error = capsys.readouterr().err
    sentences = [line for line in error.splitlines() if line.startswith("trl-prune: ")]
    assert code == 2, error
    assert len(sentences) == 1, error
    assert "Traceback" not in error
    return sentences[0]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_at_each_stage_and_the_same_command_goes_on(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    for stage in STAGES:
        for limit in LIMITS:
            with largest_file(limit):
                sentence = refused(capsys, stage, recipe)
            assert str(run) in sentence
            assert "File too large" in sentence or "cannot be written" in sentence
            assert not list((run / stage.replace("-", "_")).rglob("result.json"))
            assert not [path for path in run.rglob("*.part") if path.is_file()]
        assert main([stage, str(recipe)]) == 0
    assert not list(run.rglob("pending.json"))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-200] ^= 4
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.slow
def test_what_changed_after_it_was_written_is_named_when_it_is_used(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["cache-teacher", str(recipe)]) == 0
    assert main(["prune", str(recipe)]) == 0
    shard, model = shard_path(run / "cache_teacher" / "cache", 0), run / "prune" / "model"
    for path, named in ((shard, shard), (model / "model.safetensors", model)):
        written = path.read_bytes()
        for harm in (flip_a_bit, cut_short):
            harm(path)
            assert str(named) in refused(capsys, "recover", recipe)
            path.write_bytes(written)
    assert main(["recover", str(recipe)]) == 0


@pytest.mark.slow
def test_a_dense_model_that_changed_between_stages_is_named_and_scored_again(recipe, tmp_path, caplog):
    assert main(["score", str(recipe)]) == 0
    flip_a_bit(tmp_path / "dense" / "model.safetensors")
    assert main(["prune", str(recipe)]) == 0
    assert f"{tmp_path / 'run' / 'score'} has other inputs (dense) and is redone" in caplog.text


@pytest.mark.slow
def test_an_output_folder_below_a_file_is_one_sentence(recipe, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    sentence = refused(capsys, "score", recipe, f"output={tmp_path / 'file' / 'run'}")
    assert f"the output folder {tmp_path / 'file' / 'run'} cannot be made: Not a directory" in sentence
