"""Checkpoints, resumed runs, and what saved models contain."""

import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS, SIZES, save_tiny
from tests.trainers.configs import config
from tests.trainers.kd.training import logged, train, weights
from trl_prune import KDTrainer
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.trainers.kd.projection import PROJECTION
from trl_prune.trainers.kd.training_state import STATE_FILE


def test_the_projection_to_a_wider_teacher_is_not_saved(tmp_path):
    teacher = save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    student = save_tiny(tmp_path / "narrow")
    changes = {"save_strategy": "steps", "save_steps": 2, "hidden_loss": ["embedding", "block"]}
    trainer = train(student, tmp_path, teacher=str(teacher), **changes)
    checkpoint, projection = tmp_path / "out" / "checkpoint-2", getattr(trainer.model, PROJECTION)
    assert projection.weight.shape == (48, SIZES["hidden_size"])
    assert (checkpoint / STATE_FILE).is_file()
    trainer.save_model(str(tmp_path / "saved"))
    trainer.model.save_pretrained(tmp_path / "by-hand")
    for folder in (checkpoint, tmp_path / "saved", tmp_path / "by-hand"):
        _, loading_info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not loading_info["missing_keys"]
        assert not loading_info["unexpected_keys"]
        assert not (tmp_path / "saved" / STATE_FILE).exists()


@pytest.mark.parametrize(
    "peft_config", [None, LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear")], ids=["full", "lora"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(peft_config, tmp_path):
    teacher = save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    student = save_tiny(tmp_path / "narrow")
    changes = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "hidden_loss": ["embedding", "block"]}
    uninterrupted = train(student, tmp_path, peft_config=peft_config, teacher=str(teacher), **changes)
    resumed = KDTrainer(
        str(student),
        config(tmp_path, **changes),
        train_dataset=Dataset.from_list(ROWS),
        teacher_model=str(teacher),
        peft_config=peft_config,
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    names = ("loss", "grad_norm", "kd_loss", "hidden_loss", "hidden_weight")
    assert logged(resumed, *names) == logged(uninterrupted, *names)
    final = weights(uninterrupted)
    assert any(PROJECTION in name for name in final)
    assert all(torch.equal(weight, final[name]) for name, weight in weights(resumed).items())


def test_a_run_that_saves_only_its_model_can_be_resumed(tmp_path):
    student, teacher = save_tiny(tmp_path / "narrow"), save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    changes = {"save_strategy": "steps", "save_steps": 2, "save_only_model": True, "hidden_loss": ["block"]}
    trainer = train(student, tmp_path, teacher=str(teacher), **changes)
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert {STATE_FILE} == {path.name for path in checkpoint.iterdir()} & {STATE_FILE, "optimizer.pt"}
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 3


def test_an_optimizer_without_the_projection_is_refused(tmp_path):
    student, teacher = save_tiny(tmp_path / "narrow"), save_tiny(tmp_path / "wide", hidden_size=48, seed=3)
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    optimizers = (torch.optim.AdamW(model.parameters()), None)
    data, teacher = Dataset.from_list(ROWS), str(teacher)
    args = config(tmp_path, hidden_loss="none")
    KDTrainer(model, args, train_dataset=data, teacher_model=teacher, optimizers=optimizers).train()
    args = config(tmp_path, hidden_loss=["block"])
    with pytest.raises(InputError, match="an optimizer without the projection"):
        KDTrainer(model, args, train_dataset=data, teacher_model=teacher, optimizers=optimizers)


def test_a_model_can_be_saved_to_the_students_own_folder(pruned, tmp_path):
    student = shutil.copytree(pruned, tmp_path / "student")
    trainer = train(student, tmp_path, max_steps=1)
    trainer.save_model(str(student))
    assert read_provenance(student) == read_provenance(pruned)


def test_a_checkpoint_without_the_state_is_refused(tmp_path):
    student = save_tiny(tmp_path / "narrow")
    changes = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    train(student, tmp_path, teacher=str(student), hidden_loss="none", **changes)
    trainer = KDTrainer(
        str(student),
        config(tmp_path, hidden_loss=["block"]),
        train_dataset=Dataset.from_list(ROWS),
        teacher_model=str(student),
    )
    with pytest.raises(InputError, match=f"has no {STATE_FILE}"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))


def test_saved_models_are_ordinary_checkpoints_with_the_provenance(pruned, tmp_path):
    trainer = train(pruned, tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    assert read_provenance(tmp_path / "saved") == read_provenance(pruned)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert saved.state_dict().keys() == AutoModelForCausalLM.from_pretrained(pruned).state_dict().keys()
