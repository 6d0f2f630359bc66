import json
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from trl_prune.checkpoints import dense_root, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.arms import training as arms
from trl_prune.trainers.arms.plan import ArmPlan, check_arm
from trl_prune.trainers.arms.saving import last_whole_checkpoint, unquantised
from trl_prune.trainers.arms.training import build_trainer, train_arm


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


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return folder


def plan(pruned, tmp_path, name="arm", **more):
    return ArmPlan(pruned, tmp_path / name, **({"args": ARGS | {"num_train_epochs": 1}} | more))


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def test_an_arm_ends_as_a_plain_checkpoint(pruned, tmp_path):
    told = train_arm(plan(pruned, tmp_path), Dataset.from_list(ROWS), tmp_path / "model")
    assert told.steps == 6
    assert told.final_loss == told.log[-1]["loss"]
    assert read_provenance(tmp_path / "model").dense == read_provenance(pruned).dense
    assert read_provenance(tmp_path / "model").parent == str(pruned)
    assert {path.name for path in pruned.iterdir()} <= {path.name for path in (tmp_path / "model").iterdir()}
    assert any(not torch.equal(weight, weights(pruned)[name]) for name, weight in weights(tmp_path / "model").items())
    assert not (tmp_path / "arm").exists()


def test_lora_is_merged(pruned, tmp_path):
    trainer_plan = plan(pruned, tmp_path, peft={"r": 2})
    trainer = build_trainer(trainer_plan, Dataset.from_list(ROWS))
    trainer.train()
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        wanted = trainer.model.eval()(tokens).logits
    arms.save_recovered(trainer.model, pruned, tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(tokens).logits, wanted, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in merged.state_dict())


def test_an_adapter_on_quantised_weights_goes_back_to_those_they_were_made_of(pruned, tmp_path):
    """A quantiser of GPUs is not here: weights that were rounded stand for quantised ones."""
    told = plan(pruned, tmp_path, peft={"r": 2})
    trainer = build_trainer(told, Dataset.from_list(ROWS))
    trainer.train()
    whole = unquantised(trainer.model, told)
    assert whole is trainer.model
    base = trainer.model.get_base_model()
    base.is_quantized = True
    wanted = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in base.named_parameters():
            if "lora" not in name:
                weight.mul_(1.1)
    whole = unquantised(trainer.model, told)
    merged = whole.merge_and_unload().state_dict()
    moved = [name for name, weight in wanted.state_dict().items() if not torch.equal(weight, merged[name])]
    assert moved
    assert all("proj" in name for name in moved)


def test_the_token_budget_is_what_is_trained_on(pruned, tmp_path):
    rows = Dataset.from_list(ROWS)
    total = sum(map(len, build_trainer(plan(pruned, tmp_path), rows).train_dataset["input_ids"]))
    told = train_arm(plan(pruned, tmp_path, tokens=total * 2, args=ARGS), rows, tmp_path / "model")
    assert told.tokens == 2 * total
    assert told.steps == 12


def test_both_kinds_of_data_are_learned_alike(pruned, tmp_path):
    """An arm on references and one on a rewriting that kept every reference end with the same weights."""
    told = {"provenance": "reference", "verdict": "disagrees", "reference_answer": "x", "rewrite": "y"}
    kept = Dataset.from_list([row | told for row in ROWS])
    train_arm(plan(pruned, tmp_path, "a"), Dataset.from_list(ROWS), tmp_path / "references")
    train_arm(plan(pruned, tmp_path, "b"), kept, tmp_path / "rewritten")
    told = weights(tmp_path / "rewritten")
    assert all(torch.equal(weight, told[name]) for name, weight in weights(tmp_path / "references").items())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("peft", [None, {"r": 2, "lora_dropout": 0.1}])
def test_a_broken_arm_goes_on_and_ends_the_same(pruned, tmp_path, monkeypatch, peft):
    rows = Dataset.from_list(ROWS)
    unbroken = train_arm(plan(pruned, tmp_path, "unbroken", peft=peft), rows, tmp_path / "wanted")
    steps = 0
    step = arms.SelfDistillSFTTrainer.training_step

    def breaking(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 6:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(arms.SelfDistillSFTTrainer, "training_step", breaking)
    with pytest.raises(Killed):
        train_arm(plan(pruned, tmp_path, "broken", peft=peft), rows, tmp_path / "got")
    assert last_whole_checkpoint(tmp_path / "broken").name == "checkpoint-4"
    resumed = train_arm(plan(pruned, tmp_path, "broken", peft=peft), rows, tmp_path / "got")
    assert steps == 6 + 2
    assert resumed == unbroken
    wanted = weights(tmp_path / "wanted")
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights(tmp_path / "got").items())


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global_st'), (6, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-2"
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert last_whole_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("args", "peft", "message"),
    [
        ({"learning_rat": 1}, None, "args.learning_rat is no argument here; did you mean 'learning_rate'?"),
        ({"output_dir": "x"}, None, "args.output_dir is no argument here"),
        ({}, {"rank": 8}, "peft.rank is no argument here"),
        ({"lr_scheduler_type": "wavy"}, None, "wavy"),
        ({"save_strategy": "sometimes"}, None, "sometimes"),
        ({}, {"target_modules": ["lm_head"]}, "peft.target_modules has 'lm_head', whose products are fused"),
        ({}, {"modules_to_save": ["lm_head"]}, "peft.modules_to_save has 'lm_head'"),
    ],
)
def test_wrong_arguments_are_named(args, peft, message):
    with pytest.raises(InputError) as error:
        check_arm({"use_cpu": True, "bf16": False} | args, peft)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"save_steps": 5, "logging_steps": 2}, "args.save_steps is 5; wanted: a multiple of logging_steps (2)"),
        ({"train_sampling_strategy": "group_by_length"}, "does not resume to the same batches"),
        ({"eval_strategy": "steps"}, "args.eval_strategy is no argument here"),
        ({"fp16": True, "bf16": True}, "args:"),
    ],
)
def test_arguments_that_would_break_a_resume_or_fail_late_are_refused(args, message):
    with pytest.raises(InputError) as error:
        check_arm({"use_cpu": True, "bf16": False} | args, None)
    assert message in str(error.value)


def test_the_students_cache_setting_stays(pruned, tmp_path):
    train_arm(plan(pruned, tmp_path), Dataset.from_list(ROWS), tmp_path / "model")
    told = [json.loads((folder / "config.json").read_text())["use_cache"] for folder in (pruned, tmp_path / "model")]
    assert told[0] == told[1] is True


def test_right_arguments_pass():
    check_arm({"learning_rate": 1e-4, "packing": False, "use_cpu": True, "bf16": False}, {"r": 4, "lora_alpha": 8})


def test_a_map_beyond_the_dense_model_is_told_before_anything_is_cut():
    args = {"use_cpu": True, "bf16": False, "layer_map": {0: 99}, "hidden_loss": ["block"]}
    with pytest.raises(InputError, match="layer_map names block 99 of the teacher, which has blocks 0 to 31"):
        check_arm(args, None, "kd", 32)
    check_arm(args | {"layer_map": {0: 31}}, None, "kd", 32)
