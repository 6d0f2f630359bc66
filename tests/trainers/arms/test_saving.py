import shutil

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from tests.trainers.arms.test_training import arm_settings
from trl_prune.trainers.arms import training
from trl_prune.trainers.arms.saving import last_complete_checkpoint, save_recovered, unquantised
from trl_prune.trainers.arms.training import build_trainer


def test_lora_is_merged(pruned, tmp_path):
    trainer = build_trainer(arm_settings(pruned, tmp_path, peft={"r": 2}), Dataset.from_list(ROWS))
    trainer.train()
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        logits = trainer.model.eval()(tokens).logits
    save_recovered(trainer.model, pruned, tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(tokens).logits, logits, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in merged.state_dict())


def test_an_arm_with_lora_ends_as_base_plus_the_products_of_its_adapters(pruned, tmp_path, monkeypatch):
    """`W + alpha / r * B @ A` (2106.09685, section 4.1), and every weight without an adapter as it was."""
    trained = {}

    def recorded(model, student, target):
        trained.update({name: weight.detach().clone() for name, weight in model.state_dict().items()})
        save_recovered(model, student, target)

    monkeypatch.setattr(training, "save_recovered", recorded)
    peft = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
    training.train_arm(arm_settings(pruned, tmp_path, peft=peft), Dataset.from_list(ROWS), tmp_path / "model")
    base, merged = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (pruned, tmp_path / "model")
    )
    assert base.keys() == merged.keys()
    adapted = 0
    for name, weight in base.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        b, a = (trained.get(f"{module}.lora_{letter}.default.weight") for letter in "BA")
        expected = weight if a is None else weight + 6 / 2 * b @ a
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)
        adapted += a is not None and not torch.equal(weight, merged[name])
    assert adapted == 2 * 2, "two modules in each of two blocks"


def test_an_adapter_on_quantised_weights_is_merged_into_the_unquantised_ones(pruned, tmp_path):
    """Quantisers need a GPU; scaled weights stand in for quantised ones."""
    settings = arm_settings(pruned, tmp_path, peft={"r": 2})
    trainer = build_trainer(settings, Dataset.from_list(ROWS))
    trainer.train()
    assert unquantised(trainer.model, settings) is trainer.model
    quantised = trainer.model.get_base_model()
    quantised.is_quantized = True
    student = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in quantised.named_parameters():
            if "lora" not in name:
                weight.mul_(1.1)
    merged = unquantised(trainer.model, settings).merge_and_unload().state_dict()
    changed = [name for name, weight in student.state_dict().items() if not torch.equal(weight, merged[name])]
    assert changed
    assert all("proj" in name for name in changed)


def test_incomplete_checkpoints_are_skipped(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global_st'), (6, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-2"
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert last_complete_checkpoint(tmp_path) is None
