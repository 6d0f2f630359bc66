"""Where a student says it comes from, and what is said where it says nothing."""

import pytest
from transformers import AutoModelForCausalLM

from tests.conftest import save_tiny
from trl_prune.checkpoints import PROVENANCE, dense_root, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.surgery import LAYERS, prune_checkpoint
from trl_prune.trainers.origins import carry_provenance, checkpoint_of, dense_of, provenance_of


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 2]}, dense_root(dense, str(dense)))
    return folder


def test_a_model_is_traced_by_name_and_in_memory(pruned):
    loaded = AutoModelForCausalLM.from_pretrained(pruned)
    for student in (str(pruned), loaded):
        assert checkpoint_of(student) == pruned
        assert provenance_of(student).keep[LAYERS] == [0, 2]


def test_a_model_from_nowhere_has_no_folder(dense):
    loaded = AutoModelForCausalLM.from_pretrained(dense)
    loaded.config._name_or_path = ""
    assert checkpoint_of(loaded) is None
    assert provenance_of(loaded) is None
    assert checkpoint_of("someone/model") is None


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
