import pytest
from datasets import Dataset

from tests.conftest import ROWS, tiny_tokenizer
from trl_prune import KDConfig, KDTrainer
from trl_prune.trainers.arms.plan import ArmPlan
from trl_prune.trainers.arms.training import build_trainer
from trl_prune.trainers.preparation import preparation_args, prepare_rows


MESSAGES = [{"messages": [*row["prompt"], *row["completion"]]} for row in ROWS]
TEXT = [{"text": row["completion"][0]["content"]} for row in ROWS]
ARGS = {"use_cpu": True, "bf16": False, "max_length": 48, "seed": 3, "gradient_checkpointing": False}


@pytest.mark.parametrize("rows", [ROWS, MESSAGES, TEXT])
@pytest.mark.parametrize(
    "args",
    [
        {},
        {"completion_only_loss": False, "max_length": 20},
        {"packing": True},
        {"packing": True, "packing_strategy": "wrapped", "shuffle_dataset": True},
        {"padding_free": True, "max_length": None},
    ],
)
def test_rows_are_those_the_trainer_trains_on(dense, tmp_path, rows, args):
    told = ARGS | args
    trainer = build_trainer(ArmPlan(dense, tmp_path / "arm", told), Dataset.from_list(rows))
    prepared = prepare_rows(Dataset.from_list(rows), told, tiny_tokenizer(), answers_only=True)
    check_same(prepared, trainer.train_dataset)


def check_same(prepared, wanted):
    assert ("seq_lengths" in prepared.column_names) == ("seq_lengths" in wanted.column_names)
    for name in prepared.column_names:
        assert prepared[name] == wanted[name]


def test_a_script_learns_whole_conversations_as_sft_does(dense, tmp_path):
    told = KDConfig(str(tmp_path), report_to="none", **ARGS)
    data = Dataset.from_list(MESSAGES)
    trainer = KDTrainer(str(dense), told, train_dataset=data, teacher_model=str(dense))
    check_same(prepare_rows(data, ARGS, tiny_tokenizer()), trainer.train_dataset)


def test_only_what_touches_rows_decides_them():
    assert preparation_args({"max_length": 8, "learning_rate": 1.0, "packing": True}) == {
        "max_length": 8,
        "packing": True,
    }
