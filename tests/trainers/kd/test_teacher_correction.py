import shutil

import pytest
import torch
from datasets import Dataset, IterableDataset
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tests.conftest import ROWS, save_tiny, tiny_tokenizer
from tests.trainers.kd.test_trainer import config, logged
from trl_prune import KDTrainer
from trl_prune.errors import InputError
from trl_prune.trainers.kd.teacher_correction import FOLDER, correction_arguments


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("student") / "model", seed=1)


def distilled(student, dense, tmp_path, how, **more):
    told = {"teacher_correction": how, "teacher_correction_args": {"max_steps": 6, "learning_rate": 1e-2}}
    args = config(tmp_path, hidden_loss="none", **(told | more))
    data = Dataset.from_list(ROWS)
    return KDTrainer(str(student), args, train_dataset=data, eval_dataset=data, teacher_model=str(dense))


def changed(dense, folder):
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (dense, folder))
    assert before.keys() == after.keys()
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def data_loss(model, trainer):
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(ROWS))])
    with torch.no_grad():
        return model(**batch).loss.item()


@pytest.mark.parametrize("how", ["full", "lora", "norms"])
def test_the_teacher_is_fitted_to_the_data_and_kept_as_a_plain_checkpoint(how, student, dense, tmp_path):
    trainer = distilled(student, dense, tmp_path, how)
    folder = tmp_path / "out" / FOLDER
    names = changed(dense, folder)
    assert names
    if how == "norms":
        assert all("norm" in name for name in names)
    fresh = AutoModelForCausalLM.from_pretrained(dense)
    assert data_loss(trainer.teacher.model, trainer) < data_loss(fresh, trainer)
    assert not any(weight.requires_grad for weight in trainer.teacher.model.parameters())
    trainer.train()
    assert logged(trainer, "kd_loss")[0][0] > 0


def test_the_teacher_is_not_pushed_with_the_student(student, dense, tmp_path):
    trainer = distilled(student, dense, tmp_path, "norms")
    uploaded = filter_repo_objects(
        [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")],
        ignore_patterns=["_*", f"{PREFIX_CHECKPOINT_DIR}-*"],  # Trainer.push_to_hub's own
    )
    assert not [name for name in uploaded if "correct" in name]
    pushing = config(tmp_path, teacher_correction="norms")
    pushing.push_to_hub, pushing.hub_model_id = True, "someone/student"
    told = correction_arguments(pushing)
    assert (told.push_to_hub, told.hub_model_id) == (False, None)
    assert trainer.teacher.model is not None


@pytest.mark.parametrize("wrong", ["tokenizer", "map"])
def test_what_cannot_be_distilled_is_told_before_the_teacher_is_trained(wrong, student, dense, tmp_path):
    teacher, more = shutil.copytree(dense, tmp_path / "dense"), {}
    if wrong == "tokenizer":
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["answer"])
        tokenizer.save_pretrained(teacher)
    else:
        more = {"hidden_loss": ["block"], "layer_map": {0: 9}}
    for given in (str(student), AutoModelForCausalLM.from_pretrained(student)):
        args = config(tmp_path, teacher_correction="norms", **more)
        with pytest.raises(InputError, match="tokenizer is another|names block 9 of the teacher"):
            KDTrainer(given, args, train_dataset=Dataset.from_list(ROWS), teacher_model=str(teacher))
        assert not (tmp_path / "out" / FOLDER).exists()


def test_a_second_start_finds_it(student, dense, tmp_path, monkeypatch):
    distilled(student, dense, tmp_path, "norms")
    stamp = (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns
    distilled(student, dense, tmp_path, "norms")
    assert (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns == stamp
    distilled(student, dense, tmp_path, "norms", seed=3)
    assert (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns != stamp


@pytest.mark.parametrize("what", ["row", "learning rate", "mask"])
def test_what_it_was_fitted_to_or_how_has_changed(what, student, dense, tmp_path):
    distilled(student, dense, tmp_path, "norms")
    stamp = (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns
    rows = [dict(row) for row in ROWS]
    if what == "row":
        rows[5] = ROWS[4]
    more = {"row": {}, "mask": {"completion_only_loss": False}}.get(what)
    if more is None:
        more = {"teacher_correction_args": {"max_steps": 6, "learning_rate": 2e-2}}
    told = {"teacher_correction": "norms", "teacher_correction_args": {"max_steps": 6, "learning_rate": 1e-2}}
    args = config(tmp_path, hidden_loss="none", **(told | more))
    KDTrainer(str(student), args, train_dataset=Dataset.from_list(rows), teacher_model=str(dense))
    assert (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns != stamp


def test_a_stream_is_fitted_to_anew(student, dense, tmp_path):
    data = IterableDataset.from_generator(lambda: iter(ROWS))
    told = {"teacher_correction": "norms", "teacher_correction_args": {"max_steps": 1}, "hidden_loss": "none"}
    stamps = []
    for _ in range(2):
        KDTrainer(str(student), config(tmp_path, **told), train_dataset=data, teacher_model=str(dense))
        stamps.append((tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns)
    assert stamps[0] != stamps[1]


def test_a_teacher_in_memory_is_not_changed(student, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense)
    args = config(tmp_path, teacher_correction="full")
    with pytest.raises(InputError, match="teacher_correction wants `teacher_model` as a folder"):
        KDTrainer(str(student), args, train_dataset=Dataset.from_list(ROWS), teacher_model=teacher)
