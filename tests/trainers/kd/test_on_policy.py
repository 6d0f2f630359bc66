"""Reference: `generate` on each prompt alone, and distillation on rows made of what it wrote."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from tests.trainers.configs import config
from tests.trainers.kd.training import logged, train
from trl_prune import KDConfig, KDTrainer
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.trainers.kd.on_policy import _without_loop


OWN = {"lmbda": 1.0, "max_completion_length": 6, "generation_temperature": 0.0, "hidden_loss": "none"}


def trainer_of(student, tmp_path, **changes):
    return KDTrainer(str(student), config(tmp_path, **(OWN | changes)), train_dataset=Dataset.from_list(ROWS))


def own_rows(trainer, length):
    """Return the trainer's rows with the greedy continuations of one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(trainer.model.config._name_or_path, dtype=torch.float32)
    rows = []
    for row in trainer.train_dataset:
        start = next(index for index, label in enumerate(row["labels"]) if label != MASKED)
        prompt = torch.tensor([row["input_ids"][:start]])
        ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=length, pad_token_id=0
        )[0]
        answer = _without_loop(ids[start:])
        rows.append(
            {"input_ids": [*prompt[0].tolist(), *answer.tolist()], "labels": [MASKED] * start + answer.tolist()}
        )
    return Dataset.from_list(rows)


def test_it_is_distillation_on_what_the_student_writes(pruned, tmp_path):
    changes = {"max_steps": 1, "per_device_train_batch_size": 12}
    own = trainer_of(pruned, tmp_path, **changes)
    expected = KDTrainer(str(pruned), config(tmp_path, hidden_loss="none", **changes), train_dataset=own_rows(own, 6))
    own.train()
    expected.train()
    names = ("loss", "grad_norm", "kd_loss")
    assert logged(own, *names)[0] == pytest.approx(logged(expected, *names)[0], rel=1e-4)


@pytest.mark.parametrize("peft_config", [None, LoraConfig(r=2, target_modules="all-linear")], ids=["full", "lora"])
def test_a_part_of_the_batches_is_the_students(peft_config, pruned, tmp_path):
    changes = {"gradient_accumulation_steps": 3, "max_steps": 4, "per_device_train_batch_size": 2}
    rows = Dataset.from_list(ROWS)
    args = config(tmp_path, **(OWN | changes | {"lmbda": 0.5, "generation_temperature": 1.0, "ce_weight": 0.5}))
    trainer = KDTrainer(str(pruned), args, train_dataset=rows, peft_config=peft_config)
    settings = trainer._base_model.generation_config.to_dict()
    seen = []
    batch = trainer._distillation_batch

    def noted(inputs):
        seen.append(inputs.get("on_policy", False))
        made = batch(inputs)
        assert made.objective.ce_weight == (0.0 if seen[-1] else 0.5)
        return made

    trainer._distillation_batch = noted
    trainer.train()
    assert len(seen) == 12
    assert 0 < sum(seen) < 12
    assert all(torch.isfinite(torch.tensor(logged(trainer, "loss", "grad_norm"))).flatten())
    assert trainer._base_model.generation_config.to_dict() == settings


def test_draws_are_those_of_seed_and_step(pruned, tmp_path):
    trainer = trainer_of(pruned, tmp_path, lmbda=0.5, generation_temperature=1.0)
    batches = [next(iter(trainer.get_train_dataloader())) for _ in range(6)]

    def of_step(step):
        trainer.state.global_step, trainer.state.max_steps = step, 10
        return list(trainer.on_policy.replaced(iter(batches), trainer.model, trainer.state))

    one, again, other = of_step(3), of_step(3), of_step(4)
    torch.manual_seed(1)
    assert all(torch.equal(first["input_ids"], second["input_ids"]) for first, second in zip(one, again, strict=True))
    assert any(
        first["input_ids"].shape != second["input_ids"].shape
        or first.keys() != second.keys()
        or not torch.equal(first["input_ids"], second["input_ids"])
        for first, second in zip(one, other, strict=True)
    )


def test_answers_grow_from_the_first_step_to_the_last(pruned, tmp_path):
    trainer = trainer_of(pruned, tmp_path, min_completion_length=2, max_completion_length=10)
    lengths = []
    for step in range(5):
        trainer.state.global_step, trainer.state.max_steps = step, 5
        lengths.append(trainer.on_policy.length(trainer.state))
    assert lengths == [2, 4, 6, 8, 10]


def test_prompts_are_kept_and_only_answers_learned(pruned, tmp_path):
    trainer = trainer_of(pruned, tmp_path)
    given = next(iter(trainer.get_train_dataloader()))
    trainer.state.max_steps = 3
    (own,) = trainer.on_policy.replaced(iter([given]), trainer.model, trainer.state)
    for row, labels in enumerate(given["labels"]):
        start = int((labels != MASKED).int().argmax())
        assert torch.equal(own["input_ids"][row, :start], given["input_ids"][row, :start])
        assert (own["labels"][row, :start] == MASKED).all()
        real = own["attention_mask"][row].bool()
        learned = own["labels"][row] != MASKED
        assert torch.equal(learned, real & (torch.arange(len(real)) >= start))
        assert 1 <= learned.sum() <= 6
    assert trainer.model.training == given.get("training", trainer.model.training)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 5, 5, 5, 5, 5, 5], [1, 5, 5]),
        ([1, 5, 5, 5], [1, 5, 5, 5]),
        ([9, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2], [9, 1, 2, 1, 2]),
    ],
)
def test_a_loop_is_cut(ids, kept):
    assert _without_loop(torch.tensor(ids)).tolist() == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmbda": 1.5}, "`lmbda` is 1.5; it must be between 0 and 1"),
        ({"max_completion_length": None}, "so `max_completion_length` is needed"),
        ({"max_completion_length": 0}, "`max_completion_length` is needed"),
        ({"min_completion_length": 0}, "`min_completion_length` is 0; it must be at least 1"),
        ({"generation_temperature": -1}, "generation_temperature"),
    ],
)
def test_impossible_values_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, KDConfig, **(OWN | changes))


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (ROWS, {"packing": True, "max_length": 64}, "answers are written row by row"),
        ([{"text": "no prompt at all"}] * 4, {}, "row 0 of the training dataset has no prompt to continue"),
    ],
)
def test_rows_that_cannot_be_continued_are_refused(rows, changes, message, pruned, tmp_path):
    with pytest.raises(InputError, match=message):
        train(pruned, tmp_path, rows, **(OWN | changes))
