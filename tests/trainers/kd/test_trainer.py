"""Steps against dense float64 torch, and against SFTTrainer where nothing is distilled."""

import copy
import logging

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tests.conftest import ROWS, tiny_model, tiny_tokenizer
from tests.trainers.configs import config
from tests.trainers.kd.training import EVERY_STATE, logged, train, weights
from trl_prune import KDConfig, KDTrainer
from trl_prune.errors import InputError


TEXT = [{"text": f"The number {number} comes before {number + 1}."} for number in range(12)]
MESSAGES = [{"messages": row["prompt"] + row["completion"]} for row in ROWS]
PLAIN = [{"prompt": f"What is {number}?", "completion": f" It is {number}."} for number in range(12)]
FORMATS = {"prompt-completion": ROWS, "messages": MESSAGES, "plain": PLAIN, "text": TEXT}
STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@pytest.mark.parametrize("rows", FORMATS.values(), ids=FORMATS)
def test_every_format_trains_and_learns_from_the_dense_root(rows, pruned, tmp_path):
    trainer = train(pruned, tmp_path, rows, max_steps=9, learning_rate=3e-3)
    losses = [loss for (loss,) in logged(trainer, "kd_loss")]
    assert losses[-1] < 0.7 * losses[0]
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    names = {"loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens", "ce_loss", "kd_loss", "kd_weight"}
    assert names <= entry.keys()


def test_without_distillation_it_is_sft(pruned, tmp_path):
    kd = train(pruned, tmp_path, kd_weight=0.0, ce_weight=1.0, hidden_loss="none")
    sft = SFTTrainer(str(pruned), config(tmp_path, SFTConfig), train_dataset=Dataset.from_list(ROWS))
    sft.train()
    names = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")
    for kd_values, sft_values in zip(logged(kd, *names), logged(sft, *names), strict=True):
        assert kd_values == pytest.approx(sft_values, rel=1e-4)


def test_a_model_distilled_from_itself_has_no_gradient(dense, tmp_path):
    trainer = train(dense, tmp_path, teacher=str(dense))
    losses, norms = zip(*logged(trainer, "kd_loss", "grad_norm"), strict=True)
    assert max(losses) < 1e-6
    assert max(norms) < 1e-3


def dense_step(student, teacher, batch, ce_weight=0.0):
    """Return the loss and gradient of the mean over learned positions, in float64 from full logits."""
    student = copy.deepcopy(student).double()
    teacher = copy.deepcopy(teacher).double()
    labels = batch["labels"][:, 1:]
    learned = labels != -100
    inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
    student_logits = student(**inputs).logits[:, :-1][learned]
    with torch.no_grad():
        teacher_logits = teacher(**inputs).logits[:, :-1][learned]
    log_p, log_q = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    loss = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    loss = loss + ce_weight * torch.nn.functional.nll_loss(log_p, labels[learned])
    loss.backward()
    return loss.item(), {name: weight.grad.float() for name, weight in student.named_parameters()}


CONFIG_CHANGES = {
    "gemma2": {"final_logit_softcapping": 4.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 2.0},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"dropout": 0.0},
}


@pytest.mark.parametrize("ce_weight", [0.0, 0.5])
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere", "gpt2", "opt"])
def test_a_step_is_that_of_dense_float64(family, ce_weight, tmp_path):
    changes = CONFIG_CHANGES.get(family, {})
    student, teacher = tiny_model(family, seed=1, **changes), tiny_model(family, seed=2, **changes)
    before = copy.deepcopy(student)
    args = config(tmp_path, per_device_train_batch_size=12, ce_weight=ce_weight, hidden_loss="none", **STEP)
    trainer = KDTrainer(
        student, args, train_dataset=Dataset.from_list(ROWS), teacher_model=teacher, processing_class=tiny_tokenizer()
    )
    batch = next(iter(trainer.get_train_dataloader()))
    loss, gradients = dense_step(before, teacher, batch, ce_weight=ce_weight)
    trainer.train()
    assert logged(trainer, "loss") == [(pytest.approx(loss, rel=1e-4),)]
    after = dict(trainer.model.named_parameters())
    for name, weight in before.named_parameters():
        torch.testing.assert_close(weight - after[name], gradients[name], atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"hidden_loss": EVERY_STATE, "layer_map": "origins"}, marks=pytest.mark.slow),
        {"hidden_loss": ["block"], "ce_weight": 0.3},
    ],
    ids=["logits", "states", "mixed"],
)
def test_steps_do_not_depend_on_how_rows_are_batched(changes, pruned, tmp_path):
    names = ("loss", "grad_norm", "ce_loss", "kd_loss") + (("hidden_loss", "hidden_weight") if changes else ())
    values = []
    for batch_size, accumulation_steps in ((4, 1), (2, 2), (1, 4)):
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation_steps}
        values.append(logged(train(pruned, tmp_path, **sizes, **changes), *names))
    for other in values[1:]:
        for one_batch, several in zip(values[0], other, strict=True):
            assert several == pytest.approx(one_batch, rel=2e-4, abs=1e-6)


def test_packing_and_padding_free_are_the_padded_rows(pruned, tmp_path):
    """Flattened rows that do not attend to each other learn what padded ones learn."""
    changes = {"hidden_loss": EVERY_STATE, "hidden_weight": 0.5, "max_length": None}
    padded = train(pruned, tmp_path, **changes)
    flattened = train(pruned, tmp_path, padding_free=True, **changes)
    names = ("loss", "kd_loss", "hidden_loss", "grad_norm")
    for padded_values, flattened_values in zip(logged(padded, *names), logged(flattened, *names), strict=True):
        assert flattened_values == pytest.approx(padded_values, rel=1e-3, abs=1e-6)
    packed = train(pruned, tmp_path, packing=True, max_length=64)
    assert logged(packed, "kd_loss")[0][0] > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant, pruned, tmp_path):
    states = ["embedding", "block"] if reentrant else EVERY_STATE
    changes = {"hidden_loss": states, "layer_map": "origins"}
    plain = train(pruned, tmp_path, **changes)
    checkpointed = train(
        pruned,
        tmp_path,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        **changes,
    )
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(checkpointed)[name], weight, atol=1e-5, rtol=1e-4)


def test_bf16_autocast_trains(pruned, tmp_path):
    float32 = logged(train(pruned, tmp_path), "kd_loss")
    bfloat16 = logged(train(pruned, tmp_path, bf16=True), "kd_loss")
    assert bfloat16[0] == pytest.approx(float32[0], rel=0.05)


def test_lora_trains_the_adapter_only(pruned, tmp_path):
    peft_config = LoraConfig(r=2, target_modules="all-linear")
    trainer = train(pruned, tmp_path, peft_config=peft_config, learning_rate=1e-2)
    losses = [loss for (loss,) in logged(trainer, "kd_loss")]
    assert losses[-1] < losses[0]
    before = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32).state_dict()
    after = trainer.model.get_base_model().state_dict()
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"])


def test_an_adapter_on_the_head_is_refused(pruned, tmp_path):
    with pytest.raises(ValueError, match="adapter to `lm_head` is not supported"):
        train(pruned, tmp_path, peft_config=LoraConfig(r=2, target_modules=["lm_head"]))


@pytest.mark.slow
def test_dft_and_label_smoothing_are_trls_plus_the_divergence(pruned, tmp_path):
    """The cross-entropy in the loss is SFTTrainer's."""
    data = Dataset.from_list(ROWS)
    kd_loss = logged(train(pruned, tmp_path, max_steps=1, hidden_loss="none"), "kd_loss")[0][0]
    for changes in ({"loss_type": "dft"}, {"label_smoothing_factor": 0.1}):
        kd = train(pruned, tmp_path, max_steps=1, hidden_loss="none", ce_weight=0.5, **changes)
        sft = SFTTrainer(str(pruned), config(tmp_path, SFTConfig, max_steps=1, **changes), train_dataset=data)
        sft.train()
        loss = 0.5 * logged(sft, "loss")[0][0] + kd_loss
        assert logged(kd, "loss")[0][0] == pytest.approx(loss, rel=1e-4)


def test_a_cross_entropy_without_weight_is_disabled_with_a_warning(pruned, tmp_path, caplog):
    def must_not_run(*_, **__):
        raise AssertionError

    data, plain = Dataset.from_list(ROWS), train(pruned, tmp_path)
    with caplog.at_level(logging.WARNING):
        trainer = KDTrainer(str(pruned), config(tmp_path), train_dataset=data, compute_loss_func=must_not_run)
    assert any("compute_loss_func sets the cross-entropy, which has no" in record.message for record in caplog.records)
    trainer.train()
    assert logged(trainer, "loss") == logged(plain, "loss")


@pytest.mark.parametrize("cls", [TrainingArguments, SFTConfig])
def test_training_arguments_of_other_classes_are_converted(cls, pruned, dense, tmp_path):
    args = cls(str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_steps=1, hub_token="secret")
    data = Dataset.from_list(TEXT)
    trainer = KDTrainer(str(pruned), args, None, data, data, teacher_model=str(dense))
    assert isinstance(trainer.args, KDConfig)
    assert trainer.args.hub_token == "secret"


def test_streams_train(pruned, tmp_path):
    data = IterableDataset.from_generator(lambda: iter(ROWS))
    trainer = KDTrainer(str(pruned), config(tmp_path), train_dataset=data)
    trainer.train()
    assert logged(trainer, "kd_loss")[0][0] > 0


def test_rows_with_nothing_to_learn_are_refused(pruned, tmp_path):
    rows = [{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}] * 4
    with pytest.raises(InputError, match="no row of the training dataset has a token to learn"):
        train(pruned, tmp_path, rows)


def test_a_batch_with_nothing_to_learn_has_loss_zero(pruned, tmp_path):
    trainer = train(pruned, tmp_path)
    ids = torch.arange(6)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.full_like(ids, -100)}
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(5))
    loss.backward()
    assert loss == 0
