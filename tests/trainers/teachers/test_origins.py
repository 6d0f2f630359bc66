"""Where a student says it comes from, and what is said where it says nothing."""

import functools
import shutil

import pytest
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import cached_file

from tests.conftest import save_tiny, tiny_config
from trl_prune.checkpoints import PROVENANCE, dense_root, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.teachers import origins
from trl_prune.trainers.teachers.origins import carry_provenance, checkpoint_of, dense_of, provenance_of


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 2]}, dense_root(dense, str(dense)))
    return folder


def dense_config(dense):
    return AutoConfig.from_pretrained(dense)


def test_a_model_is_traced_by_name_and_in_memory(pruned, dense):
    loaded = AutoModelForCausalLM.from_pretrained(pruned)
    for student in (str(pruned), loaded):
        assert checkpoint_of(student) == pruned
        assert provenance_of(student, dense_config(dense)).keep[LAYERS] == [0, 2]


def test_a_model_from_nowhere_has_no_folder(dense):
    loaded = AutoModelForCausalLM.from_pretrained(dense)
    loaded.config._name_or_path = ""
    assert checkpoint_of(loaded) is None
    assert provenance_of(loaded, dense_config(dense)) is None
    assert checkpoint_of("someone/model") is None


def test_a_cut_says_nothing_about_another_teacher(pruned):
    assert provenance_of(str(pruned), tiny_config("llama", num_hidden_layers=8)) is None
    assert provenance_of(str(pruned), tiny_config("llama", hidden_size=64)).keep[LAYERS] == [0, 2]


def test_a_student_on_the_hub_brings_its_provenance(pruned, tmp_path, monkeypatch):
    """The cache is laid out as the hub's client lays it out; the hub itself is not asked."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--pruned" / "snapshots" / commit
    shutil.copytree(pruned, snapshot)
    (cache / "models--someone--pruned" / "refs").mkdir()
    (cache / "models--someone--pruned" / "refs" / "main").write_text(commit)
    monkeypatch.setattr(origins, "cached_file", functools.partial(cached_file, cache_dir=cache, local_files_only=True))
    assert checkpoint_of("someone/pruned") == snapshot
    assert dense_of("someone/pruned", "") == dense_of(str(pruned), "")


def test_the_dense_root_is_found(pruned, dense):
    assert dense_of(str(pruned), "").resolve() == dense.resolve()


def test_what_else_to_do_is_said(tmp_path):
    alone = save_tiny(tmp_path / "alone")
    with pytest.raises(InputError, match=f"has no {PROVENANCE} that names its dense model.*, or write a cache"):
        dense_of(str(alone), "write a cache")


def test_provenance_is_carried_where_there_is_one(pruned, tmp_path):
    (tmp_path / "saved").mkdir()
    carry_provenance(None, tmp_path / "saved")
    carry_provenance(tmp_path, tmp_path / "saved")
    assert not (tmp_path / "saved" / PROVENANCE).exists()
    carry_provenance(pruned, tmp_path / "saved")
    assert read_provenance(tmp_path / "saved") == read_provenance(pruned)
    carry_provenance(pruned, pruned)
    assert read_provenance(tmp_path / "saved") == read_provenance(pruned)
