import shutil

import pytest
import torch
from datasets import Dataset, IterableDataset
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tests.conftest import ROWS, save_tiny, tiny_tokenizer
from tests.trainers.configs import config
from tests.trainers.kd.training import logged
from trl_prune import KDTrainer
from trl_prune.errors import InputError
from trl_prune.trainers.kd.teacher_correction import FOLDER, correction_arguments


CORRECTION = {"max_steps": 6, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("student") / "model", seed=1)


def correct(student, dense, tmp_path, method, rows=ROWS, **changes):
    """Return the trainer of a corrected teacher."""
    arguments = {"teacher_correction": method, "teacher_correction_args": CORRECTION, "hidden_loss": "none"}
    args = config(tmp_path, **(arguments | changes))
    data = Dataset.from_list(rows)
    return KDTrainer(str(student), args, train_dataset=data, eval_dataset=data, teacher_model=str(dense))


def written_at(tmp_path):
    """Return when the corrected teacher was written."""
    return (tmp_path / "out" / FOLDER / "config.json").stat().st_mtime_ns


def changed_tensors(dense, folder):
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (dense, folder))
    assert before.keys() == after.keys()
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def data_loss(model, trainer):
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(ROWS))])
    with torch.no_grad():
        return model(**batch).loss.item()


@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(method, marks=pytest.mark.slow) for method in ("full", "norms"))]
)
def test_the_teacher_is_fine_tuned_and_kept_as_an_ordinary_checkpoint(method, student, dense, tmp_path):
    trainer = correct(student, dense, tmp_path, method)
    names = changed_tensors(dense, tmp_path / "out" / FOLDER)
    assert names
    if method == "norms":
        assert all("norm" in name for name in names)
    uncorrected = AutoModelForCausalLM.from_pretrained(dense)
    assert data_loss(trainer.teacher.model, trainer) < data_loss(uncorrected, trainer)
    assert not any(weight.requires_grad for weight in trainer.teacher.model.parameters())
    trainer.train()
    assert logged(trainer, "kd_loss")[0][0] > 0


def test_the_teacher_is_not_pushed_with_the_student(student, dense, tmp_path):
    trainer = correct(student, dense, tmp_path, "norms")
    uploaded = filter_repo_objects(
        [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")],
        ignore_patterns=["_*", f"{PREFIX_CHECKPOINT_DIR}-*"],  # those of Trainer.push_to_hub
    )
    assert not [name for name in uploaded if "correct" in name]
    pushing = config(tmp_path, teacher_correction="norms")
    pushing.push_to_hub, pushing.hub_model_id = True, "someone/student"
    args = correction_arguments(pushing)
    assert (args.push_to_hub, args.hub_model_id) == (False, None)
    assert trainer.teacher.model is not None


@pytest.mark.parametrize("wrong", ["tokenizer", "map"])
def test_invalid_inputs_are_refused_before_the_teacher_is_trained(wrong, student, dense, tmp_path):
    teacher, changes = shutil.copytree(dense, tmp_path / "dense"), {}
    if wrong == "tokenizer":
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["answer"])
        tokenizer.save_pretrained(teacher)
    else:
        changes = {"hidden_loss": ["block"], "layer_map": {0: 9}}
    for model in (str(student), AutoModelForCausalLM.from_pretrained(student)):
        args = config(tmp_path, teacher_correction="norms", **changes)
        with pytest.raises(InputError, match="tokenizer differs|names block 9 of the teacher"):
            KDTrainer(model, args, train_dataset=Dataset.from_list(ROWS), teacher_model=str(teacher))
        assert not (tmp_path / "out" / FOLDER).exists()


def test_a_second_start_reuses_it(student, dense, tmp_path):
    correct(student, dense, tmp_path, "norms")
    first = written_at(tmp_path)
    correct(student, dense, tmp_path, "norms")
    assert written_at(tmp_path) == first
    correct(student, dense, tmp_path, "norms", seed=3)
    assert written_at(tmp_path) != first


@pytest.mark.parametrize(
    "what", ["row", *(pytest.param(what, marks=pytest.mark.slow) for what in ("learning rate", "mask"))]
)
def test_other_rows_or_arguments_correct_the_teacher_again(what, student, dense, tmp_path):
    correct(student, dense, tmp_path, "norms")
    first = written_at(tmp_path)
    rows = [dict(row) for row in ROWS]
    if what == "row":
        rows[5] = ROWS[4]
    changes = {
        "row": {},
        "mask": {"completion_only_loss": False},
        "learning rate": {"teacher_correction_args": CORRECTION | {"learning_rate": 2e-2}},
    }
    correct(student, dense, tmp_path, "norms", rows, **changes[what])
    assert written_at(tmp_path) != first


@pytest.mark.slow
def test_a_stream_corrects_the_teacher_at_every_start(student, dense, tmp_path):
    data = IterableDataset.from_generator(lambda: iter(ROWS))
    changes = {"teacher_correction": "norms", "teacher_correction_args": {"max_steps": 1}, "hidden_loss": "none"}
    times = []
    for _ in range(2):
        KDTrainer(str(student), config(tmp_path, **changes), train_dataset=data, teacher_model=str(dense))
        times.append(written_at(tmp_path))
    assert times[0] != times[1]


def test_a_teacher_in_memory_is_refused(student, dense, tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(dense)
    args = config(tmp_path, teacher_correction="full")
    with pytest.raises(InputError, match="teacher_correction needs `teacher_model` as a folder"):
        KDTrainer(str(student), args, train_dataset=Dataset.from_list(ROWS), teacher_model=teacher)
