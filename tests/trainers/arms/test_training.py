import json
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from trl_prune.checkpoints import read_provenance
from trl_prune.trainers.arms import training
from trl_prune.trainers.arms.saving import last_complete_checkpoint
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import TRAINER_CLASSES, SelfDistillSFTTrainer, build_trainer, train_arm


ARGS = {
    "use_cpu": True,
    "bf16": False,
    "per_device_train_batch_size": 2,
    "logging_steps": 2,
    "save_steps": 2,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "learning_rate": 1e-3,
}


def arm_settings(pruned, tmp_path, name="arm", **changes):
    return ArmSettings(pruned, tmp_path / name, **({"args": ARGS | {"num_train_epochs": 1}} | changes))


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def test_an_arm_ends_as_an_ordinary_checkpoint(pruned, tmp_path):
    result = train_arm(arm_settings(pruned, tmp_path), Dataset.from_list(ROWS), tmp_path / "model")
    assert result.steps == 6
    assert result.final_loss == result.log[-1]["loss"]
    assert read_provenance(tmp_path / "model").dense == read_provenance(pruned).dense
    assert read_provenance(tmp_path / "model").parent == str(pruned)
    assert {path.name for path in pruned.iterdir()} <= {path.name for path in (tmp_path / "model").iterdir()}
    assert any(not torch.equal(weight, weights(pruned)[name]) for name, weight in weights(tmp_path / "model").items())
    assert not (tmp_path / "arm").exists()
    before, after = (
        json.loads((folder / "config.json").read_text())["use_cache"] for folder in (pruned, tmp_path / "model")
    )
    assert before == after is True


def test_the_token_budget_is_the_number_of_tokens_trained_on(pruned, tmp_path):
    rows = Dataset.from_list(ROWS)
    row_tokens = sum(map(len, build_trainer(arm_settings(pruned, tmp_path), rows).train_dataset["input_ids"]))
    settings = arm_settings(pruned, tmp_path, tokens=row_tokens * 2, args=ARGS)
    result = train_arm(settings, rows, tmp_path / "model")
    assert result.tokens == 2 * row_tokens
    assert result.steps == 12


def test_an_arm_trains_on_its_rows_as_they_are(pruned, tmp_path):
    """Rows of the `rewrite` stage have the columns of the dataset, so that nothing tells them from references."""
    trainer = build_trainer(arm_settings(pruned, tmp_path), Dataset.from_list(ROWS))
    assert trainer.args.rewrite is False
    for row, prepared in zip(ROWS, trainer.train_dataset, strict=True):
        text = trainer.processing_class.decode(prepared["input_ids"])
        assert text == trainer.processing_class.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)


class Killed(BaseException):
    pass


def killed_once(monkeypatch, trainer_class, at):
    """Have trainers killed in a training step, once, and return a list that gets an entry for every step."""
    steps, training_step = [], trainer_class.training_step

    def counted(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == at:
            raise Killed
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(trainer_class, "training_step", counted)
    return steps


LORA = {"peft": {"r": 2, "lora_dropout": 0.1}}


@pytest.mark.parametrize(
    "changes",
    [{}, LORA, {"method": "local_kd"}, pytest.param({"method": "local_kd"} | LORA, marks=pytest.mark.slow)],
    ids=["full", "lora", "local", "local lora"],
)
def test_an_interrupted_arm_resumes_to_the_same_weights(dense, pruned, tmp_path, monkeypatch, changes):
    rows = Dataset.from_list(ROWS)
    options = changes | ({"teacher": dense} if "method" in changes else {})
    uninterrupted = arm_settings(pruned, tmp_path, "uninterrupted", **options)
    expected = train_arm(uninterrupted, rows, tmp_path / "expected")
    steps = killed_once(monkeypatch, TRAINER_CLASSES[uninterrupted.method], 6)
    interrupted = arm_settings(pruned, tmp_path, "interrupted", **options)
    with pytest.raises(Killed):
        train_arm(interrupted, rows, tmp_path / "resumed")
    assert last_complete_checkpoint(tmp_path / "interrupted").name == "checkpoint-4"
    assert train_arm(interrupted, rows, tmp_path / "resumed") == expected
    assert len(steps) == 6 + 2
    expected_weights = weights(tmp_path / "expected")
    assert all(torch.equal(weight, expected_weights[name]) for name, weight in weights(tmp_path / "resumed").items())


@pytest.mark.parametrize("peft", [None, pytest.param({"r": 2}, marks=pytest.mark.slow)])
def test_a_temperature_without_sampling_costs_no_training(pruned, tmp_path, peft):
    """transformers refuses to save such a generation config once a trainer has changed it, after all steps."""
    student = shutil.copytree(pruned, tmp_path / "student")
    (student / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    settings = arm_settings(student, tmp_path, peft=peft, args=ARGS | {"max_steps": 1})
    train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert not {"temperature", "top_p"} & saved.keys()


@pytest.mark.parametrize(
    "args",
    [
        {"max_steps": 2, "save_strategy": "no"},
        pytest.param({"max_steps": 2}, marks=pytest.mark.slow),
        pytest.param({"num_train_epochs": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_finished_training_is_never_repeated(pruned, tmp_path, monkeypatch, args):
    """The last of two steps is in the middle of an epoch, where transformers' own resumption adds a third."""
    rows, target = Dataset.from_list(ROWS), tmp_path / "model"
    settings = arm_settings(pruned, tmp_path, args=ARGS | args)
    with monkeypatch.context() as patched:
        patched.setattr(training, "save_recovered", raise_no_space)
        with pytest.raises(OSError, match="No space"):
            train_arm(settings, rows, target)
    checkpoint = last_complete_checkpoint(tmp_path / "arm")
    state, trained = json.loads((checkpoint / "trainer_state.json").read_text()), weights(checkpoint)
    with monkeypatch.context() as patched:
        patched.setattr(SelfDistillSFTTrainer, "training_step", lambda *_, **__: pytest.fail("it trained again"))
        result = train_arm(settings, rows, target)
    assert result.steps == state["global_step"] == state["max_steps"]
    assert all(torch.equal(weight, trained[name]) for name, weight in weights(target).items())
    monkeypatch.setattr(training, "build_trainer", lambda *_: pytest.fail("it was set up again"))
    assert train_arm(settings, rows, target) == result, "killed after the model was written"


def raise_no_space(*_: object) -> None:
    raise OSError("No space left on device")
