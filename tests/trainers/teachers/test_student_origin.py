"""The checkpoint, provenance and dense root of a student."""

import functools
import shutil

import pytest
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import cached_file

from tests.conftest import save_tiny, tiny_config
from trl_prune.checkpoints import PROVENANCE, dense_root, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.trainers.teachers import student_origin
from trl_prune.trainers.teachers.student_origin import StudentOrigin


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 2]}, dense_root(dense, str(dense)))
    return folder


def test_a_student_by_name_and_one_in_memory_have_the_same_origin(pruned, dense):
    loaded = AutoModelForCausalLM.from_pretrained(pruned)
    for student in (str(pruned), loaded):
        origin = StudentOrigin.of(student)
        assert origin == StudentOrigin(str(pruned), pruned, read_provenance(pruned))
        assert origin.provenance_for(AutoConfig.from_pretrained(dense)).keep[LAYERS] == [0, 2]


def test_a_model_without_a_checkpoint_has_no_folder(dense):
    loaded = AutoModelForCausalLM.from_pretrained(dense)
    loaded.config._name_or_path = ""
    origin = StudentOrigin.of(loaded)
    assert origin == StudentOrigin("LlamaForCausalLM")
    assert origin.provenance_for(loaded.config) is None
    assert StudentOrigin.of("someone/model") == StudentOrigin("someone/model")


def test_the_provenance_does_not_apply_to_a_teacher_of_other_depth(pruned):
    origin = StudentOrigin.of(str(pruned))
    assert origin.provenance_for(tiny_config("llama", num_hidden_layers=8)) is None
    assert origin.provenance_for(tiny_config("llama", hidden_size=64)).keep[LAYERS] == [0, 2]


def test_a_student_on_the_hub_has_a_provenance(pruned, tmp_path, monkeypatch):
    """The cache is laid out as by the hub's client; no request is sent."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--pruned" / "snapshots" / commit
    shutil.copytree(pruned, snapshot)
    (cache / "models--someone--pruned" / "refs").mkdir()
    (cache / "models--someone--pruned" / "refs" / "main").write_text(commit)
    offline = functools.partial(cached_file, cache_dir=cache, local_files_only=True)
    monkeypatch.setattr(student_origin, "cached_file", offline)
    origin = StudentOrigin.of("someone/pruned")
    assert (origin.name, origin.folder) == ("someone/pruned", snapshot)
    assert origin.dense_folder("") == StudentOrigin.of(str(pruned)).dense_folder("")


def test_the_dense_root_is_found(pruned, dense):
    assert StudentOrigin.of(str(pruned)).dense_folder("").resolve() == dense.resolve()


def test_without_provenance_the_error_names_the_alternative(tmp_path):
    origin = StudentOrigin.of(str(save_tiny(tmp_path / "model")))
    with pytest.raises(InputError, match=f"has no {PROVENANCE} that names its dense model.*, or write a cache"):
        origin.dense_folder("write a cache")


def test_the_provenance_is_copied_where_there_is_one(pruned, tmp_path):
    saved = tmp_path / "saved"
    saved.mkdir()
    StudentOrigin("in memory").copy_provenance(saved)
    StudentOrigin(str(tmp_path), tmp_path).copy_provenance(saved)
    assert not (saved / PROVENANCE).exists()
    origin = StudentOrigin.of(str(pruned))
    origin.copy_provenance(saved)
    assert read_provenance(saved) == read_provenance(pruned)
    origin.copy_provenance(pruned)
    assert read_provenance(pruned) == read_provenance(saved)


def test_a_teacher_that_was_moved_is_named_with_what_to_do(tmp_path):
    dense = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 2]}, dense_root(dense, str(dense)))
    dense.rename(tmp_path / "moved")
    message = f"the {PROVENANCE} of .*pruned names its dense model '{dense}', which is not found: .*`teacher_model`"
    with pytest.raises(InputError, match=message):
        StudentOrigin.of(str(tmp_path / "pruned")).dense_folder("`teacher_cache`")
